"""`actionvit doctor`: what this machine can do."""

from __future__ import annotations

import click

from actionvit.commands.options import echo_json, json_option

PACKAGES = ("actionvit", "torch", "transformers", "av", "decord2", "h5py", "numpy", "scikit-learn", "safetensors")


@click.command(short_help="What this machine can do.")
@json_option
def command(as_json: bool) -> None:
    """Print versions, the device that `auto` means here, and which weights are at hand."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from actionvit.features.timesformer.hub import cached
    from actionvit.features.timesformer.outputs import resolve
    from actionvit.features.timesformer.variants import BUILT_IN, VARIANTS

    def release(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    device, precision = resolve()
    weights = {}
    for variant in VARIANTS.values():
        if variant.weights is None:
            weights[variant.name] = "none published; give --weights"
        elif variant.weights == BUILT_IN:
            weights[variant.name] = "built in, untrained"
        else:
            at_hand = "in the local cache" if cached(variant.weights) else "to be downloaded"
            weights[variant.name] = f"{variant.weights}, {at_hand}"
    found = {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": {name: release(name) for name in PACKAGES},
        "device": f"{device}, {precision}",
        "weights": weights,
    }
    if as_json:
        echo_json(found)
        return
    for name, value in found.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        click.echo(name)
        for key, text in lines:
            click.echo(f"  {key:14} {text}" if key else f"  {text}")
