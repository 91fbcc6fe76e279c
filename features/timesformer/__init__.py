"""Frames -> embeddings: weights of every origin, and one forward pass over them."""
