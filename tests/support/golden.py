"""Reference embeddings of the built-in variants for clips of pure arithmetic, in `golden.json`.

python tests/support/golden.py     # only after the built-in weights were trained again, never to make a test pass
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from actionvit.features.decoding import Frames

FILE = Path(__file__).with_name("golden.json")
VARIANTS = ("tiny", "tiny-hr")


def drifting(count: int = 20, height: int = 120, width: int = 160) -> Frames:
    """Return frames made by integer arithmetic only: rings and stripes that move, in three colors."""
    t, y, x = np.ogrid[:count, :height, :width]
    rings = ((x - 40 - 3 * t) ** 2 + (y - 60) ** 2) // 16
    stripes = 5 * x + 3 * y - 11 * t
    planes = [np.broadcast_to(plane, (count, height, width)) for plane in (rings, stripes, rings + stripes)]
    data = (np.stack(planes, -1) % 256).astype(np.uint8)
    return Frames(data=data, index=np.arange(count), count=count, backend="pyav")


def computed() -> dict[str, Any]:
    """Return, by variant, the weights' digest, the clip embedding, and the embeddings of the first and last frame."""
    from actionvit.features.timesformer.checkpoint import find_weights
    from actionvit.features.timesformer.encoder import Encoder
    from actionvit.features.timesformer.variants import clip_spec

    found = {}
    for variant in VARIANTS:
        weights = find_weights(variant)
        given = Encoder(weights, clip_spec(variant), device="cpu", precision="fp32").encode(drifting())
        arrays = {"clip": given["clip"][0], "first": given["frame"][0, 0], "last": given["frame"][0, -1]}
        rounded = {name: [round(float(value), 6) for value in array] for name, array in arrays.items()}
        found[variant] = {"weights": weights.digest, **rounded}
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(computed()) + "\n", encoding="utf-8")
