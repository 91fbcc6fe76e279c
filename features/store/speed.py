"""Speed of each extraction into a store: `speed.csv` beside its parts, for the cost figures of a report."""

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
    """Seconds the encoder was busy; decoding and writing overlap with it."""
    device: str


def add_speed(folder: Path, speed: Speed) -> None:
    """Append the speed of an extraction. Only the holder of the store's lock may call this."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in (*read_speed(folder), speed):
        writer.writerow((entry.videos, f"{entry.seconds:.3f}", entry.device))
    atomic_write(folder / SPEED, text.getvalue().encode())


def read_speed(folder: Path) -> list[Speed]:
    """Return the speeds of a store's extractions, oldest first; empty if `speed.csv` is missing or unreadable."""
    try:
        lines = list(csv.DictReader((folder / SPEED).read_text(encoding="utf-8").splitlines()))
        return [Speed(videos=int(row["videos"]), seconds=float(row["seconds"]), device=row["device"]) for row in lines]
    except (OSError, ValueError, KeyError, TypeError):  # no embedding depends on it
        return []


def timings(folders: Sequence[Path], rows: int) -> dict[str, float | str]:
    """Return the encoding cost of `rows` videos embedded by each of these stores, for `run.json`.

    Returns
    -------
    dict
        `clips_per_second` of all encoders run one after the other; `extract`, seconds for all rows at that rate;
        `device`. Empty if a store has no recorded speed.
    """
    records = [read_speed(folder) for folder in folders]
    if not all(sum(entry.videos for entry in record) and sum(entry.seconds for entry in record) for record in records):
        return {}
    seconds_per_clip = sum(
        sum(entry.seconds for entry in record) / sum(entry.videos for entry in record) for record in records
    )
    devices = sorted({entry.device for record in records for entry in record})
    return {
        "clips_per_second": round(1 / seconds_per_clip, 3),
        "extract": round(rows * seconds_per_clip, 3),
        "device": ", ".join(devices),
    }
