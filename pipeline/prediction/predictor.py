"""A run -> what tells the class of a video: its encoders, its head, and how sure it may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from actionvit.features.sampling import ClipSpec
from actionvit.features.store.store import FeatureStore
from actionvit.features.timesformer.checkpoint import Weights, find_weights
from actionvit.features.timesformer.outputs import FramePool
from actionvit.features.transformers_encoder import TransformersJob, find_encoder
from actionvit.heads.calibration import fit_temperature, mean_softmax
from actionvit.heads.fusion import LateFusion
from actionvit.heads.saving import load_head
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.finetuning.run_writer import KIND
from actionvit.pipeline.probing.tasks import predict_views
from actionvit.pipeline.runs import Run

Scores = NDArray[np.float64]
AT_ONCE = 16
"""Videos decoded and embedded together; on the CPU each is still computed by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunedWeights(Weights):
    """Weights of which a fine-tuning changed some."""

    changed: Mapping[str, NDArray[np.float32]]

    def load(self) -> dict[str, Tensor]:
        """Return the tensors, the changed ones as they became."""
        return {**Weights.load(self), **{name: torch.from_numpy(value) for name, value in self.changed.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One encoder, and what of it the head looks at."""

    job: Job | TransformersJob
    quantities: tuple[str, ...] = ("clip",)
    """Joined along the width."""

    def embeddings(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
        """Return (N, K, ...) of what the encoder gave for N videos."""
        return np.stack([np.concatenate([row[name] for name in self.quantities], axis=-1) for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """What a run learned on the first of its splits."""

    class_names: tuple[str, ...]
    parts: tuple[Part, ...]
    classify: Callable[[Sequence[NDArray[np.float32]]], Scores]
    """Embeddings (N, K, ...), an array a part -> probabilities (N, C)."""
    temperature: float
    """What logits are divided by, that of the clips told with a score of 0.7 seven in ten be right."""
    calibrated_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is told of one video."""

    path: Path
    scores: Scores | None
    """(C,), probabilities; None for a video that did not decode."""
    failure: str = ""
    flags: tuple[str, ...] = ()
    """What is wrong with a video that decoded all the same."""


def load_predictor(run: Run, *, weights: str | None = None) -> Predictor:
    """Return what a run learned.

    Parameters
    ----------
    run : Run
        Of `probe` or of `finetune`.
    weights : str, optional
        Where the encoder's weights lie, if not where they lay; their digest is compared in any case.

    Raises
    ------
    ActionVitError
        If the weights are not to be found, or are others than the run's.
    """
    tensors, config = run.head()
    if config["kind"] == KIND:
        return _tuned(run, tensors, config, weights)
    return _probed(run, tensors, config, weights)


def predict(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    workers: int | None = None,
    timeout: float = 60.0,
) -> Iterator[Prediction]:
    """Yield a prediction a video, in order; several are decoded and embedded at a time."""
    device, precision = resolve_device(device, precision)
    encoders = [replace(part.job, precision=precision).load(device) for part in predictor.parts]
    specs = tuple(part.job.spec for part in predictor.parts)
    requests = [DecodeRequest(str(number), path, specs) for number, path in enumerate(paths)]
    with closing(decode_stream(requests, policy=DecodePolicy(), workers=workers, timeout=timeout)) as stream:
        items: Iterator[tuple[Path, Decoded | Failure]] = zip(paths, stream, strict=True)
        while batch := list(islice(items, AT_ONCE)):
            frames = [item.frames for _, item in batch if isinstance(item, Decoded)]
            embedded = [
                part.embeddings(encoder.submit(frames).result())
                for part, encoder in zip(predictor.parts, encoders, strict=True)
                if frames
            ]
            scores = iter(predictor.classify(embedded) if frames else ())
            for path, item in batch:
                if isinstance(item, Failure):
                    yield Prediction(path=path, scores=None, failure=f"{item.reason}: {item.detail}")
                else:
                    yield Prediction(path=path, scores=next(scores), flags=item.frames.flags)


def _tuned(run: Run, tensors: dict[str, NDArray[Any]], config: dict[str, Any], source: str | None) -> Predictor:
    changed = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    variant = run.info["variant"]
    base = _weights(run, variant, source or config["weights"]["source"], config["weights"]["digest"])
    weights = FinetunedWeights(**{field.name: getattr(base, field.name) for field in fields(Weights)}, changed=changed)
    weight, bias, temperature = tensors["head.weight"], tensors["head.bias"], float(config["temperature"])

    def classify(embedded: Sequence[NDArray[np.float32]]) -> Scores:
        (X,) = embedded
        return mean_softmax(X.astype(np.float64) @ weight.T.astype(np.float64) + bias, temperature)

    return Predictor(
        class_names=run.predictions.class_names,
        parts=(Part(job=Job(variant=variant, weights=weights, spec=ClipSpec(**config["clip"]))),),
        classify=classify,
        temperature=temperature,
        calibrated_on="the validation part of its training set",
    )


def _probed(run: Run, tensors: dict[str, NDArray[Any]], config: dict[str, Any], source: str | None) -> Predictor:
    head, views, stores = load_head(tensors, config), config["input"]["views"], run.info["stores"]
    if source is not None and len(stores) > 1:
        raise ActionVitError(f"{run.folder}: several encoders are fused, and --weights names one; leave it out")
    variants = config["input"]["variants"]
    parts = [_part(run, variant, store, config, source) for variant, store in zip(variants, stores, strict=True)]
    fitted = isinstance(head, LateFusion) and head.rule == "stacked"
    known = run.predictions
    logs = np.log(np.maximum(known.scores.astype(np.float64), np.finfo(np.float32).eps))
    temperature = 1.0 if fitted else fit_temperature(logs[:, None], known.true)

    def classify(embedded: Sequence[NDArray[np.float32]]) -> Scores:
        log_proba = predict_views(head, embedded, views)
        scores = np.zeros((len(log_proba), len(known.class_names)))
        scores[:, head.classes_] = mean_softmax(log_proba[:, None], temperature)
        return scores

    return Predictor(
        class_names=known.class_names,
        parts=tuple(parts),
        classify=classify,
        temperature=temperature,
        calibrated_on="out-of-fold predictions" if fitted else "the run's test clips, none of which its head had seen",
    )


def _part(run: Run, variant: str, store: dict[str, Any], config: dict[str, Any], source: str | None) -> Part:
    key, features = store["key"], config["input"]["features"]
    layers = tuple(key["outputs"]["layers"])
    source = source or _recorded(Path(store["path"]))
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
    return Part(job=job, quantities=quantities)


def _transformers_job(run: Run, variant: str, key: dict[str, Any], source: str | None) -> TransformersJob:
    """Return the encoder of a store's key, with the key's views."""
    if source is None:
        raise ActionVitError(f"{run.folder}: the store of {variant} is gone; give --weights its folder or hub id")
    job = replace(find_encoder(source, name=variant), spec=ClipSpec(**key["clip"]))
    fields_now = json.loads(json.dumps(job.key_fields()))
    changed = [name for name in ("weights", "model", "preprocessing", "outputs") if fields_now[name] != key[name]]
    if changed:
        raise ActionVitError(
            f"{run.folder}: {job.source} is no longer the encoder that the run was made with ({', '.join(changed)}"
            " differ); give --weights the one it was made with"
        )
    return job


def _recorded(store: Path) -> str | None:
    """Return where a store's weights came from, if the store is still there to tell."""
    try:
        return cast("str | None", FeatureStore.open(store).info.get("weights"))
    except ActionVitError:
        return None


def _weights(run: Run, variant: str, source: str | None, digest: str) -> Weights:
    weights = find_weights(variant, source)
    if weights.digest != digest:
        raise ActionVitError(
            f"{run.folder}: was made with other weights than {weights.source} (sha256 {digest[:12]}..., these have"
            f" {weights.digest[:12]}...): give --weights the ones it was made with"
        )
    return weights


def best(scores: Scores, class_names: Sequence[str], top: int) -> Iterable[tuple[str, float]]:
    """Return the `top` most probable classes with their scores; of equals the first in class order."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [(class_names[i], float(scores[i])) for i in order]
