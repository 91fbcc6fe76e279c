"""Stage 1: videos -> cached embeddings, and the care of whole caches."""
