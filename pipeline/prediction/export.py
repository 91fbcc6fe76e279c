"""A run -> a folder that `transformers.pipeline("video-classification")` loads: encoder and head as one model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from actionvit import __version__
from actionvit.errors import ActionVitError
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.features.timesformer.model import TimeSformer
from actionvit.features.timesformer.state_dict import to_transformers
from actionvit.heads.fusion import LateFusion
from actionvit.heads.linear import LinearProbe
from actionvit.heads.saving import load_head
from actionvit.pipeline.extraction.job import Job
from actionvit.pipeline.finetuning.run_writer import KIND
from actionvit.pipeline.prediction.predictor import Predictor, load_predictor
from actionvit.pipeline.runs import Run

_LAST = "index = index.clip(max=len(frames) - 1)  # a short video repeats its last frame"
NEVER = -1e4
"""Logit of a class that the head has never seen: its probability is 0, as in the run."""


def export_hf(run: Run, folder: Path, *, weights: str | None = None) -> list[str]:
    """Write the run's model of its first split as `TimesformerForVideoClassification`; return what to know about it.

    The classifier is the head with its standardisation and its temperature folded in, so that the softmax of the
    exported model's logits are the scores that `predict` gives for the same frames.

    Raises
    ------
    ActionVitError
        If the folder is there, or the run cannot be said as such a model: its head is not linear, several encoders
        are fused, or the encoder has a LayerNorm that transformers' TimeSformer lacks.
    """
    if folder.exists():
        raise ActionVitError(f"{folder} is there already: give a new folder")
    predictor = load_predictor(run, weights=weights)
    weight, bias = _linear(run, predictor)
    job = predictor.parts[0].job
    if not isinstance(job, Job):
        raise ActionVitError(f"{run.folder}: its encoder is not a TimeSformer; export a run of a TimeSformer variant")
    if job.weights.config.pre_norm:
        raise ActionVitError(
            f"{run.folder}: its encoder, an inflated CLIP, begins with a LayerNorm that transformers' TimeSformer has"
            " no place for; export a run of other weights"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tensors = _tensors(job.weights, job.spec)
        tensors |= {
            "classifier.weight": torch.from_numpy(weight / predictor.temperature).float().contiguous(),
            "classifier.bias": torch.from_numpy(bias / predictor.temperature).float().contiguous(),
        }
        # Not `save_file`, which makes files that only their owner may read.
        (partial / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        _config(job.weights, job.spec, predictor.class_names).save_pretrained(partial)
        _processor(job.weights, job.spec).save_pretrained(partial)
        notes = _notes(job.weights, job.spec)
        (partial / "README.md").write_text(_card(run, job.spec, notes), encoding="utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return notes


def _linear(run: Run, predictor: Predictor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weight (C, D) and bias (C,) of logits, before the predictor's temperature."""
    tensors, config = run.head()
    if config["kind"] == KIND:
        return tensors["head.weight"].astype(np.float64), tensors["head.bias"].astype(np.float64)
    head, exponent = load_head(tensors, config), 1.0
    if len(predictor.parts) > 1:
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


def _config(weights: Weights, spec: ClipSpec, class_names: tuple[str, ...]) -> Any:
    from transformers import TimesformerConfig

    config = replace(weights.config, num_frames=spec.num_frames, image_size=spec.size).to_hf()
    del config["model_type"]
    return TimesformerConfig(
        **config,
        id2label=dict(enumerate(class_names)),
        label2id={name: number for number, name in enumerate(class_names)},
        architectures=["TimesformerForVideoClassification"],
    )


def _processor(weights: Weights, spec: ClipSpec) -> Any:
    """Return what turns frames into pixels as `features.transforms.views` does: 2 is PIL's bilinear filter."""
    from transformers import VideoMAEImageProcessor

    return VideoMAEImageProcessor(
        size={"shortest_edge": spec.size},
        crop_size={"height": spec.size, "width": spec.size},
        resample=2,
        image_mean=list(weights.mean),
        image_std=list(weights.std),
    )


def _notes(weights: Weights, spec: ClipSpec) -> list[str]:
    notes = [
        f"transformers' pipeline takes the first {spec.num_frames} frames of a file, or every n-th with"
        " frame_sampling_rate=n; README.md in the folder shows how to give it those that were trained on"
    ]
    if spec.views > 1:
        notes.append(f"the run averages {spec.views} views of a video; the exported model sees one at a time")
    if weights.licence not in ("", "MIT"):
        notes.append(f"the encoder's weights are under {weights.licence}, and so is what was made of them")
    return notes


def _card(run: Run, spec: ClipSpec, notes: list[str]) -> str:
    """Return the folder's README: what it is, and how to classify a whole video with it."""
    top1, dataset = run.metrics["summary"]["top1"], run.info["dataset"]["name"]
    lines = [f"- {note}" for note in notes]
    return f"""# {run.name}

Made by `actionvit export` {__version__} from the run `{run.name}`: {run.info["variant"]} on {dataset},
top-1 {100 * top1["mean"]:.1f} % (95 % interval {100 * top1["ci95"][0]:.1f} to {100 * top1["ci95"][1]:.1f}).

{chr(10).join(lines)}

```python
import av, numpy as np, torch
from transformers import AutoImageProcessor, AutoModelForVideoClassification

folder = "."
processor, model = AutoImageProcessor.from_pretrained(folder), AutoModelForVideoClassification.from_pretrained(folder)
with av.open("clip.avi") as video:
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
T = {spec.num_frames}
{_indices(spec)}
pixels = processor([frames[i] for i in index], return_tensors="pt")
with torch.no_grad():
    scores = model(**pixels).logits[0].softmax(-1)
print({{model.config.id2label[i]: float(scores[i]) for i in scores.argsort(descending=True)[:5].tolist()}})
```
"""


def _indices(spec: ClipSpec) -> str:
    """Return the line that says which frames are the middle view's."""
    if spec.sampling == "uniform":
        return (
            "index = (2 * np.arange(T) + 1) * max(len(frames), T) // (2 * T)  # the middle of T equal parts\n" + _LAST
        )
    return (
        f"index = max(len(frames) - {spec.span}, 0) // 2 + np.arange(T) * {spec.stride}  # the middle of the video\n"
        + _LAST
    )
