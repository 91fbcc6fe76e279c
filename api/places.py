"""Default folders."""

from __future__ import annotations

from pathlib import Path

PathLike = str | Path
CACHE, RUNS = Path("features-cache"), Path("runs")
"""Default folders of embeddings and runs, relative to the working directory; the same as on the command line."""
