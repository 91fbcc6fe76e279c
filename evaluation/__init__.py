"""Predictions to numbers: metrics, intervals, summaries."""
