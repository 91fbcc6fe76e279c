"""Arrays -> predictions: classifier heads, class weighting, metrics."""
