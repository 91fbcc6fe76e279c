"""Sampling settings as a user gives them; an encoder completes them to a `ClipSpec`. Imports no numpy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from actionvit.settings import check_settings, setting

Sampling = Literal["uniform", "dense"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """Sampling settings of one or more encoders; None stands for the encoder's own value."""

    num_frames: int | None = setting(None, "Frames per view (T).  [default: the variant's]", minimum=1)
    size: int | None = setting(None, "Side of a view in pixels (S).  [default: the variant's]", minimum=16)
    sampling: Sampling = setting("uniform", "Frames spread over the whole video, or with a fixed stride.")
    stride: int | None = setting(None, "Frames between samples of dense sampling.  [default: the variant's]", minimum=1)
    num_clips: int = setting(1, "Clips per video (temporal views).", minimum=1)
    crops: Literal[1, 3] = setting(1, "Spatial views: center, or three along the longer side.")
    flip: bool = setting(False, "Also embed the mirrored view.")

    def __post_init__(self) -> None:
        """Check choices and ranges, and warn of a stride without effect."""
        check_settings(self)
        if self.stride is not None and self.sampling != "dense":
            logger.warning(
                "stride: got %d, which has no effect with uniform sampling; choose sampling=dense", self.stride
            )
