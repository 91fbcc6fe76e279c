"""`actionvit export`: a run's model in the format of transformers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from actionvit.commands.command import Command
from actionvit.commands.options import output_option, weights_option
from actionvit.commands.run_name import RUN, open_run

DATA_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".parquet", ".safetensors", ".csv")


@click.command(
    cls=Command,
    examples="""
    actionvit export base-last1 -o my-model/
    actionvit export base-last1 --push OWNER/my-model --dry-run
    """,
)
@click.argument("run", type=RUN)
@output_option()
@click.option(
    "--format", "form", type=click.Choice(["hf"]), default="hf", show_default=True, help="Format of the files."
)
@click.option("--push", metavar="OWNER/NAME", help="Upload to this model repository of the Hugging Face Hub.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@weights_option
def command(run: str, out: Path | None, form: str, push: str | None, dry_run: bool, weights: str | None) -> None:
    """Export RUN's model as a folder that `transformers.pipeline("video-classification", FOLDER)` loads.

    RUN is a fine-tuned model, or a linear probe on clip embeddings, whose head becomes the classifier. A repository
    that --push creates is private. To write cached embeddings as npz, HDF5, Parquet or safetensors, use
    `actionvit cache export`.
    """
    from actionvit.pipeline.prediction import hub
    from actionvit.pipeline.prediction.export import export_hf

    if out is not None and out.suffix in DATA_SUFFIXES:
        raise click.UsageError(
            f"-o/--output: got {out}, expected a folder for the model; `actionvit cache export STORE -o {out}` writes"
            " embeddings"
        )
    if out is None and push is None:
        raise click.UsageError("give -o/--output, --push, or both")
    if dry_run and push is None:
        raise click.UsageError("--dry-run lists what --push would upload; give --push")
    if push is not None:
        hub.check_repo_name(push)
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary) / "model"
        notes = export_hf(open_run(run), folder, weights=weights)
        if out is not None:
            click.echo(f"{out}: a TimesformerForVideoClassification")
        for note in notes:
            click.echo(f"  {note}")
        if push is not None and dry_run:
            click.echo(f"would upload to {push} (created private if missing):")
            for name, size in hub.files_to_push(folder):
                click.echo(f"  {size:>13,} bytes  {name}")
        elif push is not None:
            click.echo(f"pushed to {hub.push(folder, push)}")
