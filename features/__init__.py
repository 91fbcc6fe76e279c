"""Video file -> arrays on disk: sampling, decoding, preprocessing, the encoder, the store."""
