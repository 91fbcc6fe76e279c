"""Stage 2 on cached embeddings: heads whose hyper-parameters are chosen inside the training set."""
