"""Prediction of new videos with the model of a run: its encoders, its head, and the temperature fitted with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.decoding import Decoded, DecodePolicy, DecodeRequest, decode_stream
from actionvit.features.device import Precision, resolve_device
from actionvit.features.failures import Failure
from actionvit.features.media import VIDEO_SUFFIXES, frame_files, natural_key
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.outputs import FramePool
from actionvit.features.transformers_encoder import TransformersJob, find_encoder
from actionvit.heads.calibration import mean_softmax
from actionvit.heads.fusion import LateFusion
from actionvit.heads.saving import load_head
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.finetuning.run_writer import KIND
from actionvit.pipeline.probing.tasks import predict_views
from actionvit.pipeline.runs import Run, parsing

Scores = NDArray[np.float64]
BATCH_VIDEOS = 16
"""Videos decoded and embedded together; on the CPU each is computed alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunedWeights(Weights):
    """Encoder weights with the tensors that a fine-tuning replaced."""

    changed: Mapping[str, NDArray[np.float32]]

    def load(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {**Weights.load(self), **{name: torch.from_numpy(value) for name, value in self.changed.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInput:
    """An encoder, and the outputs of it that the head takes."""

    job: Job | TransformersJob
    quantities: tuple[str, ...] = ("clip",)
    """Outputs that are concatenated along the width."""

    def embeddings(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
        """Return the head's input (N, K, ...) from the encoder's outputs for N videos."""
        return np.stack([np.concatenate([row[name] for name in self.quantities], axis=-1) for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """The videos that a run's model was trained on."""

    split: str | None
    """None for a final model, trained on all videos."""
    number: int
    of: int
    """Videos of the dataset."""
    root: Path
    ids: frozenset[str]

    def __str__(self) -> str:
        """Return `head of split grouped-1, trained on 25 of 32 videos`."""
        head = "final head" if self.split is None else f"head of split {self.split}"
        return f"{head}, trained on {self.number} of {self.of} videos"

    def count(self, paths: Sequence[Path]) -> int:
        """Return how many of these videos are in the training set."""
        root = self.root.resolve()
        files = {root / id for id in self.ids}
        return sum(path.resolve() in files or path.absolute() in files for path in paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """The model of a run."""

    class_names: tuple[str, ...]
    inputs: tuple[EncoderInput, ...]
    """One per encoder; several if the run fuses them."""
    classify: Callable[[Sequence[NDArray[np.float32]]], Scores]
    """Maps embeddings (N, K, ...), one array per encoder, to probabilities (N, C)."""
    temperature: float
    """Divisor of the logits that calibrates the probabilities; 1 if none was fitted in training."""
    calibrated_on: str
    """The clips that the temperature was fitted to; empty if the head is not calibrated."""
    training: TrainingSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction for one video."""

    path: Path
    scores: Scores | None
    """(C,), probabilities; None if the video did not decode."""
    failure: str = ""
    flags: tuple[str, ...] = ()
    """Defects of a video that decoded nevertheless."""


def load_predictor(run: Run, *, weights: str | None = None) -> Predictor:
    """Return the model of a run: its final model if it has one, otherwise that of its first split.

    Parameters
    ----------
    run : Run
        Of `probe` or of `finetune`.
    weights : str, optional
        Source of the encoder's weights, if they have moved; their digest must be the run's.

    Raises
    ------
    ActionVitError
        If the weights are missing or differ from the run's, or the run is malformed.
    """
    tensors, config = run.head()
    with parsing(run):
        load = _load_finetuned if config["kind"] == KIND else _load_probe
        return load(run, tensors, config, weights)


def _training_set(run: Run, config: dict[str, Any]) -> TrainingSet:
    split = config.get("split", run.predictions.split_names[0])
    trained = run.train.values() if split is None else [run.train.get(split, ())]
    ids = frozenset(id for part in trained for id in part)
    if split is None:
        ids |= frozenset(run.predictions.id.tolist())
    number = config["trained_on"]["videos"] if "trained_on" in config else len(ids)
    dataset = run.info["dataset"]
    return TrainingSet(split=split, number=number, of=dataset["videos"], root=Path(dataset["root"]), ids=ids)


def expand_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the videos that paths stand for: files and frame folders, and every video below a folder of videos.

    Raises
    ------
    ActionVitError
        If a folder holds neither frames nor videos.
    """
    videos: list[Path] = []
    for path in paths:
        if not path.is_dir() or frame_files(path):
            videos.append(path)
            continue
        below = [file for file in path.rglob("*") if file.name.lower().endswith(VIDEO_SUFFIXES) and file.name[0] != "."]
        below += [folder for folder in path.rglob("*") if folder.is_dir() and frame_files(folder)]
        if not below:
            raise ActionVitError(f"{path}: contains neither videos nor frames; give video files or their folder")
        videos += sorted(below, key=lambda file: natural_key(str(file)))
    return videos


def predict(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
) -> Iterator[Prediction]:
    """Yield one prediction per video, in order; several videos are decoded and embedded at a time.

    Parameters
    ----------
    predictor : Predictor
        As from `load_predictor`.
    paths : sequence of Path
        Video files and frame folders.
    device, precision : str
        As for `resolve_device`.
    workers : int, optional
        Decoding processes; by default one per core, 0 for none.
    timeout : float
        Seconds allowed to decode one video.
    """
    device, precision = resolve_device(device, precision)
    encoders = [replace(source.job, precision=precision).load(device) for source in predictor.inputs]
    specs = tuple(source.job.spec for source in predictor.inputs)
    requests = [DecodeRequest(str(number), path, specs) for number, path in enumerate(paths)]
    with closing(decode_stream(requests, policy=DecodePolicy(), workers=workers, timeout=timeout)) as stream:
        items: Iterator[tuple[Path, Decoded | Failure]] = zip(paths, stream, strict=True)
        while batch := list(islice(items, BATCH_VIDEOS)):
            frames = [item.frames for _, item in batch if isinstance(item, Decoded)]
            embedded = [
                source.embeddings(encoder.submit(frames).result())
                for source, encoder in zip(predictor.inputs, encoders, strict=True)
                if frames
            ]
            scores = iter(predictor.classify(embedded) if frames else ())
            for path, item in batch:
                if isinstance(item, Failure):
                    yield Prediction(path=path, scores=None, failure=f"{item.reason}: {item.detail}")
                else:
                    yield Prediction(path=path, scores=next(scores), flags=item.frames.flags)


def _load_finetuned(
    run: Run, tensors: dict[str, NDArray[Any]], config: dict[str, Any], source: str | None
) -> Predictor:
    changed = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    variant = run.info["variant"]
    base = _weights(run, variant, source or config["weights"]["source"], config["weights"]["digest"])
    inherited = {field.name: getattr(base, field.name) for field in fields(Weights)}
    weight, bias, temperature = tensors["head.weight"], tensors["head.bias"], float(config["temperature"])

    def classify(embedded: Sequence[NDArray[np.float32]]) -> Scores:
        (X,) = embedded
        return mean_softmax(X.astype(np.float64) @ weight.T.astype(np.float64) + bias, temperature)

    weights = FinetunedWeights(**inherited, changed=changed)
    return Predictor(
        class_names=run.predictions.class_names,
        inputs=(EncoderInput(job=Job(variant=variant, weights=weights, spec=ClipSpec(**config["clip"]))),),
        classify=classify,
        temperature=temperature,
        calibrated_on=config.get("calibrated_on", "the validation part of its training set"),
        training=_training_set(run, config),
    )


def _load_probe(run: Run, tensors: dict[str, NDArray[Any]], config: dict[str, Any], source: str | None) -> Predictor:
    head, views, stores = load_head(tensors, config), config["input"]["views"], run.info["stores"]
    if source is not None and len(stores) > 1:
        raise ActionVitError(f"{run.folder}: several encoders are fused, and weights= names one; leave it out")
    variants = config["input"]["variants"]
    inputs = [
        _encoder_input(run, variant, store, config, source) for variant, store in zip(variants, stores, strict=True)
    ]
    stacked = isinstance(head, LateFusion) and head.rule == "stacked"
    class_names = run.predictions.class_names

    def classify(embedded: Sequence[NDArray[np.float32]]) -> Scores:
        with parsing(run):
            log_proba = predict_views(head, embedded, views)
            scores = np.zeros((len(log_proba), len(class_names)))
            scores[:, head.classes_] = mean_softmax(log_proba[:, None])
            return scores

    return Predictor(
        class_names=class_names,
        inputs=tuple(inputs),
        classify=classify,
        temperature=1.0,  # a calibrated head applies its own
        calibrated_on="out-of-fold predictions of its training set" if stacked else "",
        training=_training_set(run, config),
    )


def _encoder_input(
    run: Run, variant: str, store: dict[str, Any], config: dict[str, Any], source: str | None
) -> EncoderInput:
    key, features = store["key"], config["input"]["features"]
    layers = tuple(key["outputs"]["layers"])
    source = source or _recorded_source(Path(store["path"]))
    job: Job | TransformersJob
    if "family" in key["model"]:
        job = _transformers_job(run, variant, key, source)
    else:
        job = Job(
            variant=variant,
            weights=_weights(run, variant, source, key["weights"]),
            spec=ClipSpec(**key["clip"]),
            frame_pool=cast(FramePool, key["outputs"]["frame_pool"]),
            layers=layers if features == "layers" else (),
        )
    quantities = (*(f"layer{layer}" for layer in layers), "clip") if features == "layers" else (features,)
    return EncoderInput(job=job, quantities=quantities)


def _transformers_job(run: Run, variant: str, key: dict[str, Any], source: str | None) -> TransformersJob:
    """Return the encoder of a store's key, with the key's views."""
    if source is None:
        raise ActionVitError(f"{run.folder}: the store of {variant} is gone; give its folder or hub id as weights=")
    job = replace(find_encoder(source, name=variant), spec=ClipSpec(**key["clip"]))
    fields_now = json.loads(json.dumps(job.key_fields()))
    changed = [name for name in ("weights", "model", "preprocessing", "outputs") if fields_now[name] != key[name]]
    if changed:
        raise ActionVitError(
            f"{run.folder}: {job.source} is no longer the encoder that the run was made with ({', '.join(changed)}"
            " differ); give the one it was made with as weights="
        )
    return job


def _recorded_source(store: Path) -> str | None:
    """Return the source of a store's weights, if the store still exists."""
    try:
        return cast("str | None", FeatureStore.open(store).info.get("weights"))
    except ActionVitError:
        return None


def _weights(run: Run, variant: str, source: str | None, digest: str) -> Weights:
    weights = find_weights(variant, source)
    if weights.digest != digest:
        raise ActionVitError(
            f"{run.folder}: was made with other weights than {weights.source} (sha256 {digest[:12]}..., these have"
            f" {weights.digest[:12]}...): give the ones it was made with as weights="
        )
    return weights


def top_classes(scores: Scores, class_names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the `top` most probable classes with their scores; ties in class order."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [(class_names[i], float(scores[i])) for i in order]
