"""Split a dataset into training and test sets: by the official lists, or seeded."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError, SettingError
from actionvit.heads.folds import grouped_folds
from actionvit.pipeline.datasets.dataset import Dataset, Protocol, Split
from actionvit.settings import setting
from actionvit.text import pluralize

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)  # no slots, so that a spec may inherit from another one as well
class SplitSpec:
    """Settings of the splits; see `make_splits`."""

    protocol: Protocol | None = setting(
        None,
        "How videos are split."
        "  [default: official if ROOT has lists, else grouped if sources are known, else stratified]",
    )
    folds: int | None = setting(None, "Number of folds, or of repeats.  [default: 5]", minimum=2)
    test_fraction: float | None = setting(
        None,
        "Fraction of videos in the test set of stratified and random splits.  [default: 0.3]",
        minimum=0,
        above=True,
        maximum=1,
        below=True,
    )


FOLDS, TEST_FRACTION = 5, 0.3
USED: dict[Protocol, tuple[str, ...]] = {
    "official": (),
    "grouped": ("folds",),
    "stratified": ("folds", "test_fraction"),
    "random": ("folds", "test_fraction"),
}
"""Settings that the splits of each protocol depend on, besides the seed."""


def recorded_spec(spec: SplitSpec) -> dict[str, Any]:
    """Return the fields of a spec as files record them: with the numbers that stand for None in the splits."""
    fields = asdict(spec)
    numbers = {"folds": spec.folds or FOLDS, "test_fraction": spec.test_fraction or TEST_FRACTION}
    return {name: numbers.get(name, value) for name, value in fields.items()}


S = TypeVar("S", bound=SplitSpec)


def with_protocol(spec: S, protocol: Protocol) -> S:
    """Return a spec with a protocol, and without the settings that this protocol does not use."""
    unused = {"folds", "test_fraction"} - set(USED[protocol])
    return replace(spec, protocol=protocol, **dict.fromkeys(unused))


def default_protocol(dataset: Dataset) -> Protocol:
    """Return the protocol that best estimates results on new videos: official lists, else by source, else by class."""
    return "official" if dataset.official else "grouped" if dataset.sources_known else "stratified"


def check_classes(dataset: Dataset) -> None:
    """Refuse a dataset on which no classifier can be trained, whatever its splits.

    Raises
    ------
    ActionVitError
        If there is one class only.
    """
    if len(dataset.class_names) == 1:
        raise ActionVitError(
            f"dataset `{dataset.name}` has one class, `{dataset.class_names[0]}`: a classifier needs at least two"
        )


def make_splits(
    dataset: Dataset,
    protocol: Protocol,
    *,
    folds: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Return the splits of a protocol; they depend only on ids, labels, sources and the seed.

    Names of classes do not matter to `grouped` and `random`; `stratified` draws classes in the order of their names.

    Parameters
    ----------
    dataset : Dataset
        The dataset to split.
    protocol : {"official", "grouped", "stratified", "random"}
        `official`: the dataset's own lists. `grouped`: each source in one fold, each fold the test set once, classes
        balanced over folds as far as sources allow. `stratified`: a fraction of each class is the test set; sources
        may be in both sets. `random`: a fraction of all videos is the test set.
    folds : int, optional
        Folds of `grouped`; repeats of `stratified` and `random`; by default 5.
    test_fraction : float, optional
        Size of the test set in `stratified` and `random`, by default 0.3.
    seed : int
        Seed of a `numpy.random.RandomState`, whose stream is frozen (NEP 19): the same splits under every version.

    Returns
    -------
    tuple of Split
        Named `official-1`, `grouped-1`, ...; ids sorted within each set.

    Raises
    ------
    ActionVitError
        If labels, official lists or their test set are missing, videos or sources are too few, or a number is given
        that the protocol does not use.
    ValueError
        If a number is out of its range.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol: got {protocol!r}, expected one of {', '.join(get_args(Protocol))}")
    if not dataset.class_names:
        raise ActionVitError(
            f"dataset `{dataset.name}` has no labels: it can be extracted, not split; give a list with labels"
        )
    if protocol == "official":
        if not dataset.official:
            raise SettingError(
                f"dataset `{dataset.name}` has no official splits;"
                " give splits_dir=, or choose protocol=grouped, stratified or random"
            )
        if not all(split.test for split in dataset.official):
            raise SettingError(
                f"dataset `{dataset.name}` has no test set; give test_split=val to score on its validation set, or"
                " choose protocol=grouped, stratified or random"
            )
    given = {"folds": folds, "test_fraction": test_fraction}
    if unused := [name for name, value in given.items() if value is not None and name not in USED[protocol]]:
        users = ", ".join(name for name in USED if unused[0] in USED[name])
        raise SettingError(
            f"{unused[0]}: got {given[unused[0]]}, which {protocol} splits do not use; leave it out, or choose another"
            f" protocol= ({users})"
        )
    if protocol == "official":
        _warn_of_untrained(dataset, dataset.official)
        return dataset.official
    folds = FOLDS if folds is None else folds
    test_fraction = TEST_FRACTION if test_fraction is None else test_fraction
    if folds < (2 if protocol == "grouped" else 1):
        raise ValueError(f"folds: got {folds}, expected at least {2 if protocol == 'grouped' else 1}")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: got {test_fraction}, expected between 0 and 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: got {seed}, expected 0 to {2**32 - 1}")
    if protocol == "grouped":
        sides = _grouped(dataset, folds, seed)
    else:
        by_class = protocol == "stratified"
        sides = (_shares(dataset, by_class, test_fraction, seed, repeat) for repeat in range(folds))
    splits = tuple(_split(dataset, f"{protocol}-{number}", test) for number, test in enumerate(sides, start=1))
    _warn_of_untrained(dataset, splits)
    return splits


def leaking_sources(dataset: Dataset, split: Split, *, within_class: bool = True) -> tuple[str, ...]:
    """Return the sources with clips in both the training and the test set, sorted.

    By default only sources with clips of one class in both sets count: their test clips show people and a place seen in
    training under the same label. HMDB51's official lists separate such names, but not the numbered parts of one film,
    and 133 to 149 films per split have clips of other classes in training; `within_class=False` counts these too.
    """
    key = {video.id: (video.source, video.label if within_class else "") for video in dataset.videos}
    return tuple(sorted({source for source, _ in {key[id] for id in split.train} & {key[id] for id in split.test}}))


def count_leaks(dataset: Dataset, splits: Mapping[str, Split]) -> dict[str, int]:
    """Return the number of leaking sources of each split by name, as in `run.json`; splits without any are left out."""
    counts = {name: len(leaking_sources(dataset, split)) for name, split in splits.items()}
    return {name: count for name, count in counts.items() if count}


def leaking_videos(dataset: Dataset, split: Split, *, within_class: bool = True) -> tuple[str, ...]:
    """Return the ids of test videos whose source is also in training, sorted; see `leaking_sources`."""
    key = {video.id: (video.source, video.label if within_class else "") for video in dataset.videos}
    train = {key[id] for id in split.train}
    return tuple(id for id in sorted(split.test) if key[id] in train)


def untested_classes(dataset: Dataset, splits: Sequence[Split]) -> str:
    """Return a sentence about splits whose test set lacks a class, with the remedy; empty if there are none."""
    label = {video.id: video.label for video in dataset.videos}
    tested = [{label[id] for id in split.test if id in label} for split in splits]
    lacking = Counter(name for classes in tested for name in dataset.class_names if name not in classes)
    if not lacking:
        return ""
    number = sum(len(classes) < len(dataset.class_names) for classes in tested)
    counts = [f"{name}: {pluralize(count, 'split')}" for name, count in lacking.most_common(3)]
    more = [f"{len(lacking) - 3} more"] if len(lacking) > 3 else []
    remedy = ""
    if splits[0].name.startswith("grouped"):
        folds = len({split.name for split in splits})
        fewest = min(len({video.source for video in dataset.videos if video.label == name}) for name in lacking)
        remedy = f"; use folds={fewest} or more sources" if 2 <= fewest < folds else "; add sources of these classes"
    elif splits[0].name.startswith("random"):
        remedy = "; protocol=stratified keeps every class in both sets"
    return (
        f"{number} of {pluralize(len(splits), 'split')} test no video of some class ({', '.join([*counts, *more])});"
        f" mean class accuracy averages the classes present{remedy}"
    )


def require_validation(split: Split) -> None:
    """Raise SettingError if a split has no validation set, on which `select_on` asks to select."""
    if not split.val:
        raise SettingError(f"select_on: got `val`, but split {split.name} has no validation set of its own")


def _split(dataset: Dataset, name: str, test: NDArray[np.bool_]) -> Split:
    if not test.any() or test.all():
        raise SettingError(
            f"dataset `{dataset.name}`: {len(test)} videos are too few for split {name};"
            " add videos or choose other folds or another test fraction"
        )
    ids = np.array([video.id for video in dataset.videos], dtype=object)
    return Split(name=name, train=tuple(ids[~test]), test=tuple(ids[test]))


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(np.int64)


def _grouped(dataset: Dataset, folds: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Yield the test set of each fold, as a mask over the videos."""
    sources = [video.source for video in dataset.videos]
    number = len(set(sources))
    if number < folds:
        if number == 1:
            raise SettingError(f"dataset `{dataset.name}`: all videos are of one source; choose another protocol=")
        raise SettingError(f"dataset `{dataset.name}`: {number} sources cannot make {folds} folds; choose fewer folds")
    random = np.random.RandomState(seed)
    fold = grouped_folds(_codes([video.label for video in dataset.videos]), _codes(sources), folds=folds, random=random)
    for i in range(folds):
        yield fold == i


def _shares(dataset: Dataset, by_class: bool, fraction: float, seed: int, repeat: int) -> NDArray[np.bool_]:
    """Return a mask of the test set: a fraction of each class (at least one clip in either set), or of all videos."""
    random = np.random.RandomState([seed, repeat])
    label = _codes([video.label if by_class else "" for video in dataset.videos])
    test = np.zeros(len(label), dtype=np.bool_)
    for code in range(label.max() + 1):
        members = random.permutation(np.flatnonzero(label == code))
        number = min(max(round(fraction * len(members)), 1), len(members) - 1)
        test[members[:number]] = True
    return test


def _warn_of_untrained(dataset: Dataset, splits: Sequence[Split]) -> None:
    """Warn of classes without a training video in a split."""
    label = {video.id: video.label for video in dataset.videos}
    for split in splits:
        if untrained := set(dataset.class_names) - {label[id] for id in split.train}:
            wrong = sum(label[id] in untrained for id in split.test)
            lost = f" ({wrong} of {len(split.test)} test videos cannot be right)" if wrong else ""
            logger.warning("%s: no training video of %s%s", split.name, ", ".join(sorted(untrained)), lost)
