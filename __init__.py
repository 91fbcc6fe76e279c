"""actionvit: cached TimeSformer embeddings of action videos, and classifier heads on them."""

__version__ = "0.1.0"
