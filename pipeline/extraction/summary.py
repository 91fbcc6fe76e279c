"""What an extraction did: counts a variant, seconds a phase, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from actionvit.pipeline.extraction.encode_queue import Clock


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one variant's videos; they add up to the dataset's (or shard's)."""

    variant: str
    store: Path
    rows: int
    """Videos that have a row now."""
    cached: int
    """Rows that were in the store before."""
    embedded: int
    reused: int
    """Rows copied from another id, or another store of the key, with the same content: renamed and moved files. After a
    dry run: rows that would be copied."""
    failed: int
    """Videos without a row, from this run or an earlier one; `failures.csv` in the store's folder names them."""
    pending: int
    """Videos still to embed: after a dry run only."""
    flagged: int
    """Rows of damaged videos whose sampled frames were intact."""
    gmac: float
    """Multiply-adds that one video's views need, in 10⁹."""
    other_keys: list[str]
    """Where the store is new: how the keys of the dataset's other stores of this variant differ from its own."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a run did and where its time went (seconds; the phases overlap)."""

    outcomes: list[Outcome]
    videos: int
    workers: int
    clock: Clock
    seconds: float
    start: float
    """Planning, and loading libraries and weights."""
    decoded: int = 0
    lost: list[str] = field(default_factory=list)
    """Attempts on an engine that ended without a result, and were repeated."""
    failed: int = 0
    """Videos that failed for at least one variant, in this run or an earlier one."""

    @property
    def limit(self) -> tuple[str, float]:
        """The stage that bounds the run, and the fraction of the running time that it was busy."""
        busy = {
            "decoding": self.clock.decode / max(self.workers, 1),
            "copying": self.clock.copy,
            "forward pass": self.clock.prepare + self.clock.forward,  # one stream or thread does both
            "writing": self.clock.write,
        }
        name = max(busy, key=lambda phase: busy[phase])
        return name, min(busy[name] / self.loop, 1.0)

    @property
    def loop(self) -> float:
        """Seconds from the first video to the last."""
        return max(self.seconds - self.start, 1e-9)

    @property
    def gmac_per_second(self) -> float:
        """Needed multiply-adds, in 10⁹, by the seconds of the forward; 0 where nothing was embedded."""
        done = sum(outcome.gmac * outcome.embedded for outcome in self.outcomes)
        return done / self.clock.forward if self.clock.forward else 0.0
