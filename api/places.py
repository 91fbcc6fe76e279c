"""Default folders, and the choice of a store."""

from __future__ import annotations

from pathlib import Path

PathLike = str | Path
CACHE, RUNS = Path("features-cache"), Path("runs")
"""Where embeddings and runs are by default, relative to the working directory; as for the command line."""


def store_settings(num_frames: int | None, size: int | None) -> dict[str, int]:
    """Return the leaves of a store's key that are asked for, as `find_store` takes them."""
    wanted = {"clip__num_frames": num_frames, "clip__size": size}
    return {name: value for name, value in wanted.items() if value is not None}
