"""Supervised processes that decode videos side by side."""
