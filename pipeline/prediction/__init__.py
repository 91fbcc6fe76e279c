"""What was learned, put to use: classes of new videos, and models for other programs."""
