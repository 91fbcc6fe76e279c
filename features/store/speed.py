"""How fast a store's rows were made: `speed.csv` beside its parts, for the cost side of a report."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actionvit.features.atomic import atomic_write

SPEED = "speed.csv"
COLUMNS = ("videos", "seconds", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One extraction into one store."""

    videos: int
    seconds: float
    """That the encoder was busy with them; decoding and writing go on beside it."""
    device: str


def note_speed(folder: Path, speed: Speed) -> None:
    """Add an extraction to a store's record; only the holder of the store's lock may."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in (*read_speed(folder), speed):
        writer.writerow((one.videos, f"{one.seconds:.3f}", one.device))
    atomic_write(folder / SPEED, text.getvalue().encode())


def read_speed(folder: Path) -> list[Speed]:
    """Return a store's record, oldest first; empty where there is none, or none that can be read."""
    try:
        lines = list(csv.DictReader((folder / SPEED).read_text(encoding="utf-8").splitlines()))
        return [Speed(videos=int(row["videos"]), seconds=float(row["seconds"]), device=row["device"]) for row in lines]
    except (OSError, ValueError, KeyError, TypeError):  # it vouches for no embedding: without it a cost is not known
        return []


def timings(folders: Sequence[Path], rows: int) -> dict[str, float | str]:
    """Return what `run.json` says of the cost of `rows` clips embedded by every one of these stores.

    Returns
    -------
    dict
        `clips_per_second` of the encoders, one after the other; `extract`, the seconds that all rows take at that
        rate; `device`. Empty where a store does not tell.
    """
    records = [read_speed(folder) for folder in folders]
    if not all(sum(one.videos for one in record) and sum(one.seconds for one in record) for record in records):
        return {}
    a_clip = sum(sum(one.seconds for one in record) / sum(one.videos for one in record) for record in records)
    devices = sorted({one.device for record in records for one in record})
    return {
        "clips_per_second": round(1 / a_clip, 3),
        "extract": round(rows * a_clip, 3),
        "device": ", ".join(devices),
    }
