"""A small synthetic dataset in the form of HMDB51: AVI files with its file names, long tail and split lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets.synthetic.motions import MOTIONS, draw_clip, draw_scene

__all__ = ["MOTIONS", "DrawnClip", "draw_clip", "draw_dataset", "plan_clips", "write_avi", "write_clip"]

SIZE = (120, 160)
FRAMES = (24, 48)
RATE = 30
LISTS = "testTrainMulti_7030_splits"
_MARK = "drawn.json"
_VERSION = (
    1  # increase when the same seed draws other pixels or names, so that old and new clips are never mixed in a folder
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnClip:
    """One clip to draw; these numbers determine its pixels."""

    motion: str
    source: int
    """Clips of one source share place and shape."""
    number: int
    """Within the source."""
    seed: int
    camera_motion: float
    noise: int

    @property
    def name(self) -> str:
        """The file name, in HMDB51's pattern."""
        camera = "cm" if self.camera_motion else "nm"
        quality = "goo" if self.noise <= 3 else "med" if self.noise <= 8 else "bad"
        return f"Sketchbook_{self.source:02d}_{self.motion}_f_{camera}_np1_fr_{quality}_{self.number}.avi"

    def draw(self) -> NDArray[np.uint8]:
        """Return the pixels, (T, 120, 160, 3)."""
        rng = np.random.RandomState([self.seed, self.source, self.number])
        scene = draw_scene(np.random.RandomState([self.seed, self.source]))
        frames = rng.randint(FRAMES[0], FRAMES[1] + 1)
        return draw_clip(
            self.motion,
            rng,
            frames=frames,
            size=SIZE,
            camera_motion=self.camera_motion,
            noise=self.noise,
            scene=scene,
        )


def plan_clips(*, seed: int = 0, clips: int = 130) -> list[DrawnClip]:
    """Return the clips to draw: 0.87 times as many per class as in the class before, one to four per source."""
    share = 0.87 ** np.arange(len(MOTIONS))
    counts = np.maximum(np.rint(clips * share / share.sum()), 5).astype(int)
    rng = np.random.RandomState(seed)
    plan: list[DrawnClip] = []
    source = 0
    for motion, count in zip(MOTIONS, counts, strict=True):
        remaining = int(count)
        while remaining:
            # A class needs three sources at least, so that each split can test one of them.
            clips_of_source = min(remaining, rng.randint(1, 5) if count > 8 else 2)
            source += 1
            moving, noise = rng.random_sample() < 0.5, rng.choice([2, 5, 12])
            plan += [
                DrawnClip(
                    motion=motion,
                    source=source,
                    number=number,
                    seed=seed,
                    camera_motion=0.06 if moving else 0.0,
                    noise=int(noise),
                )
                for number in range(clips_of_source)
            ]
            remaining -= clips_of_source
    return plan


def draw_dataset(
    root: Path,
    *,
    seed: int = 0,
    clips: int = 130,
    track: Callable[[Sequence[DrawnClip]], Iterable[DrawnClip]] = iter,
) -> int:
    """Write `root/<class>/<clip>.avi` and the split lists; clips of an earlier call are kept.

    Parameters
    ----------
    root : Path
        A new or empty folder, or one that was written with the same seed and number of clips.
    seed : int
        The same seed draws the same pixels; the files' bytes may differ between FFmpeg versions.
    clips : int
        Approximate number of clips; no class gets fewer than five.
    track : callable, optional
        Wraps the sequence of clips to write, as tqdm does.

    Returns
    -------
    int
        Number of clips written; existing ones are not counted.

    Raises
    ------
    ActionVitError
        If the folder holds something else.
    """
    _claim(root, {"drawn_by": "actionvit", "version": _VERSION, "seed": seed, "clips": clips})
    plan = plan_clips(seed=seed, clips=clips)
    missing = [clip for clip in plan if not (root / clip.motion / clip.name).exists()]
    for clip in track(missing):
        write_clip(root, clip)
    (root / LISTS).mkdir(exist_ok=True)
    for name, text in _lists(plan, seed):
        (root / LISTS / name).write_text(text, encoding="utf-8")
    return len(missing)


def write_clip(root: Path, clip: DrawnClip) -> None:
    """Draw a clip into `root/MOTION/NAME`, atomically."""
    file = root / clip.motion / clip.name
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    write_avi(partial, clip.draw())
    partial.replace(file)


def write_avi(file: Path, clip: NDArray[np.uint8]) -> None:
    """Write (T, H, W, 3) as MPEG-4 part 2 in AVI, as HMDB51's files are."""
    import av

    options = {"fflags": "+bitexact"}  # no version string: the same FFmpeg writes the same bytes
    with av.open(str(file), "w", format="avi", options=options) as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"flags": "+bitexact", "threads": "1"})
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 1_500_000
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _claim(root: Path, mark: dict[str, object]) -> None:
    """Make the folder, or check that an earlier call made it."""
    if root.exists() and not root.is_dir():
        raise ActionVitError(f"`{root}` is a file; give a new or empty folder for the drawn clips")
    root.mkdir(parents=True, exist_ok=True)
    file = root / _MARK
    if not file.exists():
        if any(root.iterdir()):
            raise ActionVitError(f"`{root}` holds other files; give a new or empty folder for the drawn clips")
        file.write_text(json.dumps(mark) + "\n", encoding="utf-8")
    try:
        existing = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        existing = None
    if existing != mark:
        raise ActionVitError(f"`{root}` holds clips drawn otherwise ({file.name}: {existing}); give another folder")


def _lists(plan: Sequence[DrawnClip], seed: int) -> Iterator[tuple[str, str]]:
    """Yield name and text of three lists per class: about 30 % test (2), by source, some clips unused (0)."""
    by_class: dict[str, dict[int, list[DrawnClip]]] = {}
    for clip in plan:
        by_class.setdefault(clip.motion, {}).setdefault(clip.source, []).append(clip)
    for motion, by_source in by_class.items():
        target = 0.3 * sum(map(len, by_source.values()))
        for number in (1, 2, 3):
            order = np.random.RandomState([seed, number, MOTIONS.index(motion)]).permutation(sorted(by_source))
            code = dict.fromkeys(by_source, 1)
            tested = 0
            for source in order:
                if not tested or tested + len(by_source[source]) <= target + 1:
                    code[source] = 2
                    tested += len(by_source[source])
            if len(order) > 5:
                code[next(source for source in order if code[source] == 1)] = 0
            yield (
                f"{motion}_test_split{number}.txt",
                "".join(f"{clip.name} {code[source]} \n" for source, clips in by_source.items() for clip in clips),
            )
