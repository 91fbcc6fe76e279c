"""Get a dataset: download or take an archive, unpack it safely, put the class folders where they belong."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from actionvit.errors import ActionVitError
from actionvit.features.media import VIDEO_SUFFIXES
from actionvit.pipeline.datasets.fetching.download import download
from actionvit.pipeline.datasets.fetching.unpack import BadArchiveError, Budget, find_program, unpack
from actionvit.pipeline.datasets.folder_dataset import is_frame_folder, scan_tree
from actionvit.pipeline.datasets.official import FOLDER_NAMES

logger = logging.getLogger(__name__)

_ARCHIVES = (".rar", ".zip", ".7z", ".tar")
_LAB = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What one must know to get a dataset."""

    title: str
    licence: str
    citation: str
    urls: tuple[str, ...] = ()
    """Archives that together make it; none where it cannot be fetched without an account."""
    by_hand: str
    """What to do where that does not work, one line."""
    videos: int
    """How many there are in the whole of it."""
    max_bytes: int = 16 * 2**30
    max_files: int = 500_000


RECIPES = {
    "hmdb51": Recipe(
        title="HMDB51, 6,766 clips of 51 classes, about 2 GB",
        licence="CC BY 4.0",
        citation="H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large Video Database for Human Motion"
        " Recognition. ICCV 2011.",
        urls=(f"{_LAB}/test_train_splits.rar", f"{_LAB}/hmdb51_org.rar"),
        by_hand="get hmdb51_org.rar and test_train_splits.rar as https://serre-lab.clps.brown.edu/resources/HMDB/ says,"
        " then `actionvit data fetch hmdb51 --from hmdb51_org.rar --from test_train_splits.rar`",
        videos=6766,
    ),
    "hmdb_simp": Recipe(
        title="HMDB_simp, 1,250 clips of 25 of HMDB51's classes as folders of JPEG frames",
        licence="that of HMDB51, CC BY 4.0",
        citation="H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large Video Database for Human Motion"
        " Recognition. ICCV 2011.",
        by_hand="it cannot be fetched without an account: download its zip (Kaggle has copies), then"
        " `actionvit data fetch hmdb_simp --from FILE.zip`",
        videos=1250,
    ),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is there now."""

    root: Path
    videos: int
    classes: int
    new: bool
    """False if it was there already and nothing was done."""


Track = Callable[[str, int, "int | None"], None]
"""Called with a step's name, how far it is, and how far it will go if known."""


def find_recipe(name: str) -> Recipe:
    """Return what is known of a dataset. Raises ActionVitError for a name that is not known."""
    if name not in RECIPES:
        raise ActionVitError(f"data fetch: got `{name}`, expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def fetch(name: str, to: Path, *, sources: Sequence[str] = (), track: Track | None = None) -> Fetched:
    """Make the folder `to` with class folders of videos, and the official lists in it where there are some.

    Everything happens in a hidden folder beside `to`, which is renamed at the end: `to` is whole or not there. An
    interrupted call leaves downloads behind in it, which the next one goes on with.

    Parameters
    ----------
    name : str
        One of `RECIPES`.
    to : Path
        A new or empty folder.
    sources : sequence of str
        Archives to take instead of the recipe's addresses: files, or http(s) addresses.
    track : callable, optional
        Told of progress.

    Raises
    ------
    ActionVitError
        If the name is unknown, the folder holds something else, an archive cannot be had, or holds no videos.
    """
    recipe = find_recipe(name)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        return _already(to)
    sources = tuple(sources) or recipe.urls
    if not sources:
        raise ActionVitError(f"{name}: {recipe.by_hand}")
    for source in sources:
        if source.lower().endswith((".rar", ".7z")):
            find_program(source)  # before gigabytes are fetched in vain
    target = to.resolve()
    work = target.with_name(f".{target.name}.fetch")
    work.mkdir(parents=True, exist_ok=True)
    try:
        archives = [_obtain(source, work, recipe.max_bytes, track) for source in sources]
    except ActionVitError as error:
        raise ActionVitError(f"{error}" if "--from" in f"{error}" else f"{error}; or {recipe.by_hand}") from error
    unpacked, ready = work / "unpacked", work / "ready"
    for folder in (unpacked, ready):
        shutil.rmtree(folder, ignore_errors=True)
    ready.mkdir()
    budget = Budget(recipe.max_bytes, recipe.max_files)
    for number, archive in enumerate(archives):
        # The name matters where the archive's files have no folder of their own.
        folder = unpacked / str(number) / f".{archive.name}"
        try:
            _unpack_nested(archive, folder, budget, track)
        except BadArchiveError:
            if work in archive.parents:
                archive.unlink()
            raise
        if not _place(folder, ready):
            raise ActionVitError(
                f"data fetch: no class folders and no split lists in `{archive}`; is it the right file?"
            )
    scan = scan_tree(ready)
    if target.exists():
        target.rmdir()
    ready.rename(target)
    shutil.rmtree(work)
    return Fetched(to, len(scan.videos), len(scan.folders), new=True)


def _already(to: Path) -> Fetched:
    """Say what a folder holds that is there; it is left alone."""
    try:
        scan = scan_tree(to)
    except ActionVitError as error:
        raise ActionVitError(f"data fetch: `{to}` holds other files; give a new folder with --output") from error
    return Fetched(to, len(scan.videos), len(scan.folders), new=False)


def _obtain(source: str, work: Path, max_bytes: int, track: Track | None) -> Path:
    """Return the archive's file: the one given, or the one downloaded now or by an earlier call."""
    if "://" not in source:
        file = Path(source).expanduser()
        if not file.is_file():
            raise ActionVitError(f"--from `{source}`: no such file; give an archive or an http(s) address")
        return file
    name = Path(unquote(urlsplit(source).path)).name.lstrip(".") or "archive"
    # Two addresses may end in one name, and the name may name the class.
    file = work / hashlib.sha256(source.encode()).hexdigest()[:8] / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        logger.info("downloading %s", source)
        step = f"download {name}"
        download(source, file, max_bytes=max_bytes, progress=track and (lambda done, total: track(step, done, total)))
    return file


def _unpack_nested(archive: Path, into: Path, budget: Budget, track: Track | None) -> None:
    """Unpack an archive and the archives in it: HMDB51 comes as one rar of 51."""
    step = f"unpack {archive.name}"
    if track:
        track(step, 0, None)
    unpack(archive, into, budget)
    inner = sorted(path for path in into.rglob("*") if path.suffix.lower() in _ARCHIVES and path.is_file())
    for number, path in enumerate(inner, start=1):
        unpack(path, path.with_name(f".{path.name}"), budget)
        path.unlink()
        if track:
            track(step, number, len(inner))


def _place(folder: Path, ready: Path) -> int:
    """Move class folders and split lists, however deep they lie, to where a dataset has them; return how many."""
    entries = sorted(folder.iterdir())
    names = [entry.name.lower() for entry in entries if entry.name[0] != "." or entry.is_dir()]
    if any(name.endswith("_test_split1.txt") for name in names):
        target = ready / FOLDER_NAMES[0]
    elif any(name.endswith(VIDEO_SUFFIXES) for name in names) or any(map(is_frame_folder, entries)):
        # An archive of one class may hold its videos without a folder: it is then the archive that names the class.
        target = ready / (folder.stem.lstrip(".") if folder.name[0] == "." else folder.name)
    else:
        return sum(_place(entry, ready) for entry in entries if entry.is_dir())
    target.mkdir(exist_ok=True)
    for entry in entries:
        if (target / entry.name).exists():
            raise ActionVitError(f"data fetch: the archives hold `{target.name}/{entry.name}` twice; give each once")
        entry.rename(target / entry.name)
    return 1
