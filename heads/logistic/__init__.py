"""Multinomial logistic regression: objective, solver and regularization path."""
