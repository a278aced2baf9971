"""PDF bytes to searchable vectors: pdf, chunk, embed, store, queue."""
