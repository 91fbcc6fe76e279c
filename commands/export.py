"""`actionvit export`: what a run learned, as a model for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from actionvit.commands.predict import find_run


@click.command(short_help="What a run learned, as a model for transformers.")
@click.argument("run")
@click.option(
    "--format", "form", type=click.Choice(["hf"]), default="hf", show_default=True, help="A Hugging Face folder."
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--weights", help="The encoder's weights, where they are no longer where the run had them.")
def command(run: str, to: str, folder: Path, weights: str | None) -> None:
    """Write RUN's model into FOLDER: `transformers.pipeline("video-classification", FOLDER)` loads it.

    RUN is fine-tuned, or a linear probe on clip embeddings; its head becomes the model's classifier.
    """
    from actionvit.pipeline.prediction.export import export_hf

    notes = export_hf(find_run(run), folder, weights=weights)
    click.echo(f"{folder}: a TimesformerForVideoClassification")
    for note in notes:
        click.echo(f"  {note}")
