"""Stage 2 by training the encoder, from its head to all of it."""
