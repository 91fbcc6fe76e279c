"""Warnings of videos that a store lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.commands.command import warn
from actionvit.text import pluralize

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore
    from actionvit.pipeline.datasets.dataset import Dataset


def warn_of_missing(dataset: Dataset, store: FeatureStore) -> int:
    """Warn of videos without an embedding; return the number of those that failed to decode.

    The others were not extracted; their warning names the command that does it.
    """
    from actionvit.pipeline.probing.features import extract_command

    missing = {video.id for video in dataset.videos} - set(store.ids)
    failed = missing & {failure.id for failure in store.failures()}
    if failed:
        verb = "is" if len(failed) == 1 else "are"
        warn(f"{pluralize(len(failed), 'video')} {verb} left out: not decodable ({store.folder}/failures.csv)")
    if number := len(missing - failed):
        verbs = ("has", "is") if number == 1 else ("have", "are")
        warn(
            f"{pluralize(number, 'video')} {verbs[0]} no {store.variant} embedding and {verbs[1]} left out:"
            f" run {extract_command(dataset, store)}"
        )
    return len(failed)
