"""Fetch a dataset: download or take its archives, unpack them safely, publish the folder by one rename."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.atomic import sync
from actionvit.features.media import VIDEO_SUFFIXES
from actionvit.features.store.locks import LOCK, locked_folder
from actionvit.pipeline.datasets.fetching.download import download
from actionvit.pipeline.datasets.fetching.unpack import BadArchiveError, Budget, find_bsdtar, unpack
from actionvit.pipeline.datasets.folder_dataset import is_frame_folder, scan_tree
from actionvit.pipeline.datasets.official import FOLDER_NAMES
from actionvit.pipeline.datasets.ucf101 import ucf101_file

logger = logging.getLogger(__name__)

_ARCHIVES = (".rar", ".zip", ".7z", ".tar")
_LAB = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"
_CRCV = "https://www.crcv.ucf.edu/data/UCF101"
_BUSY = "is fetching into this folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """Where a dataset comes from."""

    title: str
    licence: str
    citation: str
    urls: tuple[str, ...] = ()
    """The archives that make it up; none where fetching needs an account."""
    checksums: tuple[str, ...] = ()
    """`ALGORITHM:HEX` of each archive, empty where none is published."""
    by_hand: str
    """Instructions to get it by hand, in one line."""
    videos: int
    """Number of videos in the complete set."""
    max_bytes: int = 16 * 2**30
    max_files: int = 500_000


_HMDB51_PAPER = (
    "H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large Video Database for Human Motion Recognition."
    " ICCV 2011."
)
SOURCES = {
    "hmdb51": DatasetSource(
        title="HMDB51, 6,766 clips of 51 classes, about 2 GB",
        licence="CC BY 4.0",
        citation=_HMDB51_PAPER,
        urls=(f"{_LAB}/test_train_splits.rar", f"{_LAB}/hmdb51_org.rar"),
        checksums=("md5:15e67781e70dcfbdce2d7dbb9b3344b5", ""),  # as torchvision has it
        by_hand="get hmdb51_org.rar and test_train_splits.rar as https://serre-lab.clps.brown.edu/resources/HMDB/ says,"
        " then `actionvit data fetch hmdb51 --from hmdb51_org.rar --from test_train_splits.rar`",
        videos=6766,
    ),
    "ucf101": DatasetSource(
        title="UCF101, 13,320 clips of 101 classes, about 7 GB",
        licence="not stated; videos are from YouTube",
        citation="K. Soomro, A. R. Zamir, M. Shah: UCF101: A Dataset of 101 Human Action Classes From Videos in The"
        " Wild. CRCV-TR-12-01, 2012.",
        urls=(f"{_CRCV}/UCF101TrainTestSplits-RecognitionTask.zip", f"{_CRCV}/UCF101.rar"),
        checksums=("sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27", ""),  # as TFDS has it
        by_hand="get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from https://www.crcv.ucf.edu/data/UCF101.php,"
        " then `actionvit data fetch ucf101 --from UCF101.rar --from UCF101TrainTestSplits-RecognitionTask.zip`",
        videos=13320,
        max_bytes=32 * 2**30,
    ),
    "hmdb_simp": DatasetSource(
        title="HMDB_simp, 1,250 clips of 25 of HMDB51's classes as folders of JPEG frames",
        licence="that of HMDB51, CC BY 4.0",
        citation=_HMDB51_PAPER,
        by_hand="it cannot be fetched without an account: download its zip (Kaggle has copies), then"
        " `actionvit data fetch hmdb_simp --from FILE.zip`",
        videos=1250,
    ),
}
BY_HAND = {
    "kinetics": "Kinetics is downloaded by the scripts of https://github.com/cvdfoundation/kinetics-dataset"
    " (hundreds of gigabytes); put its CSV files into `annotations/` of one folder, and the videos beside them",
    "ssv2": "Something-Something v2 needs an account and an accepted agreement at"
    " https://www.qualcomm.com/developer/software/something-something-v-2-dataset; unpack the videos, and"
    " the JSON lists into `labels/` beside them",
    "jester": "Jester needs an account and an accepted agreement at"
    " https://www.qualcomm.com/developer/software/jester-dataset; unpack the frame folders, and put the"
    " CSV lists beside them",
    "diving48": "Diving48 is downloaded from http://www.svcl.ucsd.edu/projects/resound/dataset.html; unpack the videos,"
    " and put `Diving48_V2_train.json`, `Diving48_V2_test.json` and `Diving48_vocab.json` beside them",
}
"""Datasets that can be read but not fetched, with their address and layout."""
_ALIASES = {
    "k400": "kinetics",
    "k600": "kinetics",
    "k700": "kinetics",
    "sthv2": "ssv2",
    "hmdb": "hmdb51",
    "ucf": "ucf101",
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The contents of the folder after a fetch."""

    root: Path
    videos: int
    classes: int
    new: bool
    """False if the folder was complete already."""


ProgressCallback = Callable[[str, int, "int | None"], None]
"""Called with the name of a step, its progress, and its end if known."""


def find_source(name: str) -> DatasetSource:
    """Return the source of a dataset, under any usual spelling. Raises ActionVitError where it cannot be fetched."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("20bn")
    alias = _ALIASES.get(plain, plain)
    for words, key in (("kinetics", "kinetics"), ("somethingsomething", "ssv2"), ("jester", "jester")):
        alias = key if alias.startswith(words) else alias
    if alias in BY_HAND:
        raise ActionVitError(
            f"data fetch: {BY_HAND[alias]}. Then give that folder as ROOT: `actionvit data check ROOT`"
        )
    source = next((source for key, source in SOURCES.items() if key.replace("_", "") == alias), None)
    if source is None:
        raise SettingError(
            f"data fetch: got `{name}`, expected one of {', '.join(SOURCES)}; for {', '.join(BY_HAND)} it prints where"
            " they are"
        )
    return source


def fetch(name: str, to: Path, *, sources: Sequence[str] = (), progress: ProgressCallback | None = None) -> Fetched:
    """Make the folder `to` with class folders of videos and the official lists.

    The work is done in a hidden folder beside `to`, under a lock, and published by one rename, so that `to` is complete
    or absent. Downloads of an interrupted call are kept there, and the next call resumes them. Concurrent calls wait
    for each other.

    Parameters
    ----------
    name : str
        A key of `SOURCES`.
    to : Path
        A new or empty folder.
    sources : sequence of str
        Archives to take instead of the official addresses: files, or http(s) addresses.
    progress : callable, optional

    Raises
    ------
    ActionVitError
        If the name is unknown, the folder holds something else, an archive cannot be had, has another checksum than
        published, or holds no videos.
    """
    source = find_source(name)
    if _is_taken(to):
        present = _present(to)
        _remove_work_folder(to.resolve())
        return present
    checksums = () if sources else source.checksums
    sources = tuple(sources) or source.urls
    if not sources:
        raise ActionVitError(f"{name}: {source.by_hand}")
    for archive in sources:
        if archive.lower().endswith((".rar", ".7z")):
            find_bsdtar(archive)  # before gigabytes are downloaded
    target = to.resolve()
    try:
        with _work_folder(target) as work:
            if _is_taken(to):
                return _present(to)
            archives = [_obtain(archive, work, source, progress) for archive in sources]
            for file, checksum in zip(archives, checksums, strict=False):
                _verify(file, checksum)
            ready = _unpack_all(archives, work, source, progress)
            scan = scan_tree(ready)
            if target.exists():
                target.rmdir()
            ready.rename(target)
            sync(target.parent)
            _empty(work)
    except OSError as error:
        place = error.filename or target.parent
        raise ActionVitError(
            f"data fetch: {place}: {error.strerror or error}; check the disk and run it again to go on from there"
        ) from error
    return Fetched(to, len(scan.videos), len(scan.folders), new=True)


def _empty(work: Path) -> None:
    """Remove everything but the lock."""
    for path in work.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path)


def _remove_work_folder(target: Path) -> None:
    """Remove the leftovers of a call that was killed after publishing the target, unless another call is running."""
    if target.with_name(f".{target.name}.fetch").is_dir():
        with suppress(ActionVitError, OSError), _work_folder(target, wait=False) as work:
            _empty(work)


@contextmanager
def _work_folder(target: Path, *, wait: bool = True) -> Iterator[Path]:
    """Hold the lock of the hidden folder beside the target; only downloads to be resumed stay in it."""
    work = target.with_name(f".{target.name}.fetch")
    with locked_folder(work, wait=wait, busy=_BUSY):
        try:
            yield work
        finally:
            for folder in ("unpacked", "ready"):
                shutil.rmtree(work / folder, ignore_errors=True)
            with suppress(OSError):  # downloads to be resumed stay
                for path in work.iterdir():
                    if path.name != LOCK:
                        path.rmdir()


def _is_taken(to: Path) -> bool:
    return to.exists() and (not to.is_dir() or any(to.iterdir()))


def _present(to: Path) -> Fetched:
    """Return the contents of a folder that a call before this one made; it is left alone."""
    try:
        scan = scan_tree(to)
    except ActionVitError as error:
        raise ActionVitError(f"data fetch: `{to}` holds other files; give a new folder with output=") from error
    return Fetched(to, len(scan.videos), len(scan.folders), new=False)


def _obtain(archive: str, work: Path, source: DatasetSource, progress: ProgressCallback | None) -> Path:
    """Return an archive's file: the one given, or the one downloaded now or by an earlier call."""
    if "://" not in archive:
        file = Path(archive).expanduser()
        if not file.is_file():
            raise SettingError(f"from: got `{archive}`, no such file; give an archive or an http(s) address")
        return file
    name = Path(unquote(urlsplit(archive).path)).name.lstrip(".") or "archive"
    # Two addresses may end in one name, and the name may name the class.
    file = work / hashlib.sha256(archive.encode()).hexdigest()[:8] / name
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        logger.info("downloading %s", archive)
        step = f"download {name}"
        try:
            download(
                archive,
                file,
                max_bytes=source.max_bytes,
                progress=progress and (lambda done, total: progress(step, done, total)),
            )
        except ActionVitError as error:
            raise ActionVitError(f"{error}" if "from=" in f"{error}" else f"{error}; or {source.by_hand}") from error
    return file


def _verify(archive: Path, checksum: str) -> None:
    """Raise if a downloaded archive has another checksum than published; it is removed."""
    if not checksum:
        return
    algorithm, _, expected = checksum.partition(":")
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, algorithm).hexdigest()
    if digest != expected:
        archive.unlink()
        raise ActionVitError(f"`{archive.name}`: {algorithm} {digest}, expected {expected}; removed: run this again")


def _unpack_all(archives: Sequence[Path], work: Path, source: DatasetSource, progress: ProgressCallback | None) -> Path:
    """Unpack the archives; return the folder with class folders and lists, ready to be published."""
    unpacked, ready = work / "unpacked", work / "ready"
    for folder in (unpacked, ready):
        shutil.rmtree(folder, ignore_errors=True)
    ready.mkdir()
    budget = Budget(source.max_bytes, source.max_files)
    for number, archive in enumerate(archives):
        # The name matters where the archive's files have no folder of their own.
        folder = unpacked / str(number) / f".{archive.name}"
        try:
            _unpack_nested(archive, folder, budget, progress)
        except BadArchiveError:
            if work in archive.parents:
                archive.unlink()
            raise
        if not _place(folder, ready):
            raise ActionVitError(
                f"data fetch: no class folders and no split lists in `{archive}`; is it the right file?"
            )
    return ready


def _unpack_nested(archive: Path, into: Path, budget: Budget, progress: ProgressCallback | None) -> None:
    """Unpack an archive and the archives in it: HMDB51 comes as one rar of 51."""
    step = f"unpack {archive.name}"
    if progress:
        progress(step, 0, None)
    unpack(archive, into, budget)
    inner = sorted(path for path in into.rglob("*") if path.suffix.lower() in _ARCHIVES and path.is_file())
    for number, path in enumerate(inner, start=1):
        unpack(path, path.with_name(f".{path.name}"), budget)
        path.unlink()
        if progress:
            progress(step, number, len(inner))


def _place(folder: Path, ready: Path) -> int:
    """Move class folders and split lists, at any depth, to where a dataset has them; return their number."""
    entries = sorted(folder.iterdir())
    names = [entry.name.lower() for entry in entries if entry.name[0] != "." or entry.is_dir()]
    if any(name.endswith("_test_split1.txt") for name in names):
        target = ready / FOLDER_NAMES[0]
    elif any(map(ucf101_file, names)):
        target = ready / "ucfTrainTestlist"
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
