"""Does reranking help on these documents? Question sets, runs over them, and what follows from the numbers."""
