"""Question to cited answer: retrieve, rerank, answer, evaluate."""
