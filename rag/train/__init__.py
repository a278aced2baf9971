"""Training of rerankers: pairs -> lists of candidates -> adapter -> card.

`python -m rag.train` trains the bundled one, `second-look train-reranker` one on somebody's own questions.
"""
