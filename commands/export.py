"""`actionvit export`: what a run learned, as a model for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from actionvit.commands.command import Command
from actionvit.commands.options import output_option, weights_option
from actionvit.commands.predict import find_run


@click.command(cls=Command, examples="actionvit export base-finetune -o my-model/")
@click.argument("run")
@output_option(required=True)
@click.option(
    "--format", "form", type=click.Choice(["hf"]), default="hf", show_default=True, help="Format of the files."
)
@weights_option
def command(run: str, form: str, out: Path, weights: str | None) -> None:
    """Export RUN's model as a folder that `transformers.pipeline("video-classification", FOLDER)` loads.

    RUN is a fine-tuned model, or a linear probe on clip embeddings, whose head becomes the classifier.
    """
    from actionvit.pipeline.prediction.export import export_hf

    notes = export_hf(find_run(run), out, weights=weights)
    click.echo(f"{out}: a TimesformerForVideoClassification")
    for note in notes:
        click.echo(f"  {note}")
