"""The model card of an exported run: YAML front matter for the Hub, provenance, and how to get the run's scores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from actionvit import __version__
from actionvit.features.sampling import ClipSpec
from actionvit.features.timesformer.checkpoint import Weights
from actionvit.pipeline.runs import Run

METRICS = {"top1": "accuracy", "top5": "top-5 accuracy", "mean_class_accuracy": "mean class accuracy", "macro_f1": "f1"}
"""Metrics of the card by their name on the Hub."""


def model_card(run: Run, weights: Weights, spec: ClipSpec) -> str:
    """Return README.md: front matter, training data, figures, usage by installed packages."""
    import yaml  # type: ignore[import-untyped]

    front = yaml.safe_dump(front_matter(run, weights), sort_keys=False, allow_unicode=True)
    notes = "\n".join(f"- {note}" for note in (*usage_notes(spec), *view_notes(spec, weights)))
    return f"""---
{front}---

# {run.name}

TimeSformer for video classification, written by `actionvit export` {__version__} from the run `{run.name}`:
{run.info["variant"]} on {run.info["dataset"]["name"]}, {len(run.predictions.class_names)} classes.

## Weights and figures

- These weights were trained on {trained_on(run)}.
- {figures(run)}

## Usage

`classify.py` in this folder decodes a video, takes the frames and crops that the run was evaluated with, and averages
their probabilities: the same scores as `actionvit predict` (within 1e-4), independent of the installed packages.

```python
from transformers import AutoModelForVideoClassification

from classify import classify  # classify.py of this folder

model = AutoModelForVideoClassification.from_pretrained(".").eval()
scores = classify("clip.avi", model)
print(scores)
```

`transformers.pipeline("video-classification", ".")` chooses other frames, and no configuration file can change that:

{notes}
"""


def usage_notes(spec: ClipSpec) -> list[str]:
    """Return which frames `transformers.pipeline` takes, by installed packages."""
    T = spec.num_frames
    return [
        f"without torchvision the pipeline takes the first {T} frames of a file: the run's scores only for such files",
        "with torchvision but without torchcodec it raises ImportError when it decodes a file",
        f"with torchvision and torchcodec it takes frames at the start of {T} equal parts of the video; the run takes"
        f" {'their middle' if spec.sampling == 'uniform' else 'a dense clip'}. Videos shorter than {T} frames fail",
    ]


def view_notes(spec: ClipSpec, weights: Weights) -> list[str]:
    """Return the other differences from the run, and the licence."""
    notes = []
    if spec.views > 1:
        notes.append(f"the run averages {spec.views} views of a video; a pipeline sees one, the center crop")
    if weights.licence not in ("", "MIT"):
        notes.append(f"the encoder's weights are under {weights.licence}; it applies to this model, too")
    return notes


def trained_on(run: Run) -> str:
    """Describe the training data of the exported weights."""
    _, config = run.head()
    if trained := config.get("trained_on"):
        return f"{trained['videos']} videos: {trained['part']}"
    split = config.get("split") or run.predictions.split_names[0]
    return f"{len(run.train.get(split, ()))} videos: the training set of split {split}"


def figures(run: Run) -> str:
    """Return the run's top-1 accuracy with its interval, and which models it was measured with."""
    top1, splits = run.metrics["summary"]["top1"], run.predictions.split_names
    low, high = top1["ci95"]
    text = f"Top-1 accuracy {100 * top1['mean']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    _, config = run.head()
    if len(splits) == 1 and config.get("split") == splits[0]:
        return f"{text}: these weights on the test set of split {splits[0]}."
    return (
        f"{text}: the mean over {len(splits)} split{'s' if len(splits) > 1 else ''} ({', '.join(splits[:5])}"
        f"{', …' if len(splits) > 5 else ''}), each measured with a model of its own that was trained on that split's"
        " training set. It estimates this training procedure; these weights themselves were not evaluated."
    )


def front_matter(run: Run, weights: Weights) -> dict[str, Any]:
    """Return the metadata of the Hub: licence, base model, task, labels, and metrics with intervals."""
    summary, dataset = run.metrics["summary"], run.info["dataset"]["name"]
    metrics = [
        {
            "type": kind,
            "name": metric.replace("_", " "),
            "value": round(float(summary[metric]["mean"]), 6),
            "args": {"ci95": [float(value) for value in summary[metric]["ci95"]]},
        }
        for metric, kind in METRICS.items()
        if metric in summary
    ]
    return {
        "license": _licence_id(weights.licence),
        "library_name": "transformers",
        "pipeline_tag": "video-classification",
        **({"base_model": weights.source} if _is_hub_id(weights.source) else {}),
        "tags": ["timesformer", "action-recognition", "actionvit"],
        "labels": list(run.predictions.class_names),
        "model-index": [
            {
                "name": run.name,
                "results": [
                    {
                        "task": {"type": "video-classification"},
                        "dataset": {"name": dataset, "type": dataset, "args": {"protocol": run.info["protocol"]}},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def _licence_id(licence: str) -> str:
    """Return the Hub's identifier of a licence, such as `cc-by-nc-4.0`."""
    return licence.lower().replace(" ", "-") or "unknown"


def _is_hub_id(source: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source)) and not Path(source).exists()
