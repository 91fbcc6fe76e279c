"""Embeddings on disk: immutable, checksummed parts under one key."""
