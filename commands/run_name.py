"""RUN, the name of an existing run, as `report`, `predict` and `export` take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from actionvit.commands.options import setting
from actionvit.errors import ActionVitError
from actionvit.text import printable

if TYPE_CHECKING:
    from actionvit.pipeline.runs import Run


class RunName(click.types.StringParamType):
    """A run's folder, or its name below the folder of runs."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Name the runs that exist."""
        from actionvit.pipeline.runs import find_runs

        try:
            folder = setting("runs")
        except (click.UsageError, ActionVitError) as error:
            return str(error)
        return f"{folder} holds these runs: {', '.join(printable(run.name) for run in find_runs(folder)) or 'none'}"


RUN = RunName()


def open_run(name: str) -> Run:
    """Read a run by its folder, or by its name below the folder of runs."""
    from actionvit.pipeline.runs import find_run

    return find_run(name, setting("runs"))
