"""Errors of the pipeline name the command line's options; in Python the same settings are keywords."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from actionvit.errors import ActionVitError

P = ParamSpec("P")
R = TypeVar("R")


def keyword_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with options in its errors written as keywords: `--num-frames` becomes `num_frames`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ActionVitError as error:
            text = re.sub(r"(?<![\w-])--([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), str(error))
            if text == str(error):
                raise
            raise ActionVitError(text) from error

    return call
