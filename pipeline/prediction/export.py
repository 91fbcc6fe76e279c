"""Export of a run as a Hugging Face model folder: encoder and head as one model, processors, card, classify.py."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_folder
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.state_dict import to_transformers
from actionvit.heads.fusion import LateFusion
from actionvit.heads.linear import LinearProbe
from actionvit.heads.saving import load_head
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.finetuning.run_writer import KIND
from actionvit.pipeline.prediction.model_card import model_card, usage_notes, view_notes
from actionvit.pipeline.prediction.predictor import Predictor, load_predictor
from actionvit.pipeline.runs import Run, parsing

NEVER = -1e4
"""Logit of a class without training clips: its probability is 0, as in the run."""
TEMPLATE = Path(__file__).parent / "templates" / "classify.py.txt"


def export_hf(run: Run, folder: Path, *, weights: str | None = None) -> list[str]:
    """Write the run's model as a `TimesformerForVideoClassification`; return notes on its use.

    The classifier includes the head's standardization and temperature: the softmax of the exported model's logits gives
    the scores of `predict` for the same frames. The folder also holds an image processor, a video processor, a model
    card, and `classify.py`, which takes the run's frames and crops.

    Parameters
    ----------
    run : Run
    folder : Path
        Must not exist.
    weights : str, optional
        Source of the encoder's weights, if they have moved.

    Raises
    ------
    ActionVitError
        If the folder exists, or the run is not such a model: its head is not linear, several encoders are fused, or the
        encoder has a LayerNorm that transformers' TimeSformer lacks.
    """
    if folder.exists():
        raise ActionVitError(f"{folder} exists: give a new folder")
    predictor = load_predictor(run, weights=weights)
    with parsing(run):
        weight, bias = _linear(run, predictor)
        job = predictor.inputs[0].job
        if not isinstance(job, Job):
            raise ActionVitError(
                f"{run.folder}: its encoder is not a TimeSformer; export a run of a TimeSformer variant"
            )
        if job.weights.config.pre_norm:
            raise ActionVitError(
                f"{run.folder}: its encoder, an inflated CLIP, begins with a LayerNorm that transformers' TimeSformer"
                " lacks; export a run of other weights"
            )
        files = {
            "model.safetensors": _model(job, weight / predictor.temperature, bias / predictor.temperature),
            "config.json": _json(_config(job.weights, job.spec, predictor.class_names)),
            "preprocessor_config.json": _json(_processor(job.weights, job.spec, "image")),
            "video_preprocessor_config.json": _json(_processor(job.weights, job.spec, "video")),
            "views.json": _json(_views(job.weights, job.spec)),
            "classify.py": TEMPLATE.read_bytes(),
            "README.md": model_card(run, job.weights, job.spec).encode(),
        }
    with atomic_folder(folder) as fresh:
        for name, data in files.items():
            (fresh / name).write_bytes(data)
    return [*usage_notes(job.spec), *view_notes(job.spec, job.weights)]


def _model(job: Job, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> bytes:
    """Return `model.safetensors`: the encoder and a classifier with these weights."""
    tensors = _tensors(job.weights, job.spec)
    tensors["classifier.weight"] = torch.from_numpy(weight).float().contiguous()
    tensors["classifier.bias"] = torch.from_numpy(bias).float().contiguous()
    return save(tensors, metadata={"format": "pt"})


def _linear(run: Run, predictor: Predictor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (C, D) and bias (C,) of logits, before the predictor's temperature."""
    tensors, config = run.head()
    if config["kind"] == KIND:
        return tensors["head.weight"].astype(np.float64), tensors["head.bias"].astype(np.float64)
    head, exponent = load_head(tensors, config), 1.0
    if len(predictor.inputs) > 1:
        raise ActionVitError(f"{run.folder}: fuses several encoders, which one model cannot hold; export one of them")
    if isinstance(head, LateFusion):
        exponent, head = float(head.exponents_[0]), head.heads_[0]
    if not isinstance(head, LinearProbe) or config["input"]["features"] != "clip":
        raise ActionVitError(
            f"{run.folder}: only a linear head on clip embeddings can be a model's classifier; this is"
            f" {run.info['head']['kind']} on {config['input']['features']}: `actionvit predict` uses it as it is"
        )
    weight = np.zeros((len(predictor.class_names), head.coef_.shape[1]))
    bias = np.full(len(predictor.class_names), NEVER * predictor.temperature)
    weight[head.classes_], bias[head.classes_] = head.coef_ * exponent, head.intercept_ * exponent
    return weight, bias


def _tensors(weights: Weights, spec: ClipSpec) -> dict[str, Tensor]:
    """Return the encoder's tensors by transformers' names, its embeddings resampled to these frames and size."""
    named = {name: value for name, value in weights.load().items() if not name.startswith("head.")}
    encoder = TimeSformer(weights.config)
    encoder.load_state_dict(named)
    with torch.no_grad():
        named["position"] = encoder.positions(spec.size // weights.config.patch)[None]
        named["time"] = encoder.times(spec.num_frames)[None]
    if "patch.bias" not in named:  # transformers always has one
        named["patch.bias"] = torch.zeros(weights.config.width)
    return {to_transformers(name): value.contiguous() for name, value in named.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _config(weights: Weights, spec: ClipSpec, class_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **replace(weights.config, num_frames=spec.num_frames, image_size=spec.size).to_hf(),
        "model_type": "timesformer",
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: number for number, name in enumerate(class_names)},
        "architectures": ["TimesformerForVideoClassification"],
    }


def _processor(weights: Weights, spec: ClipSpec, kind: Literal["image", "video"]) -> dict[str, Any]:
    """Return the configuration of an image or video processor that preprocesses as `features.transforms.views` does.

    Written without instantiating the video processor, which needs torchvision.
    """
    video = {"video_processor_type": "VideoMAEVideoProcessor", "do_sample_frames": False}
    return {
        **({"image_processor_type": "VideoMAEImageProcessor"} if kind == "image" else video),
        "do_resize": True,
        "size": {"shortest_edge": spec.size},
        "resample": 2,  # PIL's bilinear filter
        "do_center_crop": True,
        "crop_size": {"height": spec.size, "width": spec.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(weights.mean),
        "image_std": list(weights.std),
    }


def _views(weights: Weights, spec: ClipSpec) -> dict[str, Any]:
    """Return the views of the run, for `classify.py`."""
    return {**asdict(spec), "mean": list(weights.mean), "std": list(weights.std)}
