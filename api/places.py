"""Default folders, and the choice of a store."""

from __future__ import annotations

from pathlib import Path

PathLike = str | Path
CACHE, RUNS = Path("features-cache"), Path("runs")
"""Default folders of embeddings and runs, relative to the working directory; the same as on the command line."""


def store_settings(num_frames: int | None, size: int | None) -> dict[str, int]:
    """Return the requested leaves of a store's key, as keywords of `find_store`."""
    leaves = {"clip__num_frames": num_frames, "clip__size": size}
    return {name: value for name, value in leaves.items() if value is not None}
