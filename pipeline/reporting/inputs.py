"""Lookup of the videos and the encoder of a run, for a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from actionvit.errors import ActionVitError, SettingError
from actionvit.pipeline.runs import Run

if TYPE_CHECKING:
    from actionvit.features.timesformer.rollout import AttentionRollout


def dataset_folder(run: Run, root: Path | None = None) -> Path | None:
    """Return the folder of the run's videos: `root`, else the recorded one; None where it does not exist.

    For a dataset given as a list file this is the folder of the list.
    """
    recorded = (run.info.get("dataset") or {}).get("root")
    folder = root or (Path(recorded) if recorded else None)
    if folder and folder.is_file():
        folder = folder.parent
    return folder if folder and folder.is_dir() else None


def encoder_attention(run: Run, *, weights: str | None = None, device: str = "auto") -> AttentionRollout:
    """Return the encoder that made the run's embeddings, for attention rollout.

    Parameters
    ----------
    run : Run
        Its `run.json` names the store of its embeddings.
    weights : str, optional
        Source of the encoder's weights; that of the store by default.
    device : str
        Device of the forward pass.

    Raises
    ------
    ActionVitError
        If the run does not record its store's key, or the weights differ from those of the key.
    """
    from actionvit.features.sampling import ClipSpec
    from actionvit.features.store.store import FeatureStore
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.rollout import AttentionRollout

    store = run.info.get("store") or {}
    if "key" not in store:
        raise ActionVitError(f"attention: {run.folder} does not record the encoder of its embeddings")
    variant, source = run.info["variant"].partition("+")[0], weights
    if source is None and Path(store.get("path", "")).is_dir():
        source = FeatureStore.open(Path(store["path"])).info.get("weights")
    loaded = find_weights(variant, source)
    if loaded.digest != store["key"]["weights"]:
        raise SettingError(
            f"weights: {loaded.source} did not make the embeddings of {run.folder}: its sha256 begins with"
            f" {loaded.digest[:12]}, not {store['key']['weights'][:12]}; name the weights of the extraction"
        )
    return AttentionRollout(loaded, ClipSpec(**store["key"]["clip"]), device=device)
