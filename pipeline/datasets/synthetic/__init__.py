"""Synthetic datasets for demonstrations and tests."""
