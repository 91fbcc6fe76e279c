"""Stage 2 on cached embeddings: heads, chosen inside the training side; experiments of many."""
