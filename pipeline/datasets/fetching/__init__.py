"""Datasets from the network: download, check, unpack."""
