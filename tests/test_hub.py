"""Weights by hub id: the real huggingface_hub client against a local server with the hub's interface."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forked_commands import ForkedCommands
from loopback_hub import Hub, running_hub
from safetensors.torch import load_file
from transformers_reference import SMALL, reference


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


Show = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def show(forked: ForkedCommands) -> Show:
    """Run `actionvit weights show` with a hub, in a new process, since the client reads its constants on import."""

    def run(source: str, hub: Hub, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
            **more,
        }
        return forked.run(["weights", "show", source, "--json"], environment)

    return run


@pytest.fixture
def model(tmp_path: Path) -> dict[str, bytes]:
    """A small TimeSformer's files."""
    reference(tmp_path / "model", **SMALL, image_size=32, num_frames=4)
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(pixels))
    return {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}


def test_weights_are_fetched_once_and_then_come_from_the_cache(
    show: Show, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.repositories["someone/timesformer-small"] = model
    first = show("someone/timesformer-small", hub, tmp_path / "home")
    assert first.returncode == 0, first.stderr
    value = json.loads(first.stdout)
    assert value["sha256"] == hashlib.sha256(model["model.safetensors"]).hexdigest()
    assert value["mean"] == [0.1, 0.2, 0.3] and value["shape"]["width"] == 64
    assert any(path.endswith("/resolve/main/model.safetensors") for path in hub.requested)
    requested = len(hub.requested)
    again = show("someone/timesformer-small", hub, tmp_path / "home")
    assert again.stdout == first.stdout and len(hub.requested) == requested, "no file is requested from the hub twice"


def test_uncached_processor_is_fetched_or_reported(
    show: Show, hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    """The cache after another program has loaded only the model."""
    hub.repositories["someone/timesformer-small"] = model
    home = tmp_path / "home"
    assert show("someone/timesformer-small", hub, home).returncode == 0
    for offline in (False, False, True):
        (held,) = home.rglob("preprocessor_config.json")
        held.unlink()
        done = show("someone/timesformer-small", hub, home, **({"HF_HUB_OFFLINE": "1"} if offline else {}))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["mean"] == ([0.45] * 3 if offline else [0.1, 0.2, 0.3])
        assert ("preprocessor_config.json is not in the local cache" in done.stderr) == offline
        hub.commit = hub.commit[::-1]  # the repository changes: the cache has the commit before, and stays complete


def test_a_repository_with_a_bin_alone_loads(show: Show, hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(model.pop("model.safetensors"))
    torch.save(load_file(tmp_path / "weights.safetensors"), tmp_path / "weights.bin")
    hub.repositories["someone/old"] = {**model, "pytorch_model.bin": (tmp_path / "weights.bin").read_bytes()}
    done = show("someone/old", hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == hashlib.sha256((tmp_path / "weights.bin").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such public repository on the hub"),
        ((), "the repository lacks config.json"),
        (("config.json",), "the repository lacks model.safetensors or pytorch_model.bin"),
    ],
)
def test_what_the_hub_has_not_is_said_in_one_line(
    show: Show, hub: Hub, model: dict[str, bytes], tmp_path: Path, files: tuple[str, ...] | None, message: str
) -> None:
    if files is not None:
        hub.repositories["someone/less"] = {name: model[name] for name in files}
    done = show("someone/less", hub, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("error: weights someone/less: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("offline", [True, False])
def test_unreachable_hub_is_one_line_with_a_remedy(show: Show, hub: Hub, tmp_path: Path, offline: bool) -> None:
    hub.url = "http://127.0.0.1:9"  # no server listens there; the client would try six times
    done = show("someone/away", hub, tmp_path / "home", **({"HF_HUB_OFFLINE": "1"} if offline else {}))
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "give a local folder" in done.stderr and "HF_ENDPOINT" in done.stderr


def test_hub_that_drops_connections_is_asked_once(show: Show, hub: Hub, tmp_path: Path) -> None:
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drop() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.append(connection.close())

        threading.Thread(target=drop, daemon=True).start()
        hub.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = show("someone/away", hub, tmp_path / "home")
        server.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert len(connections) == 1
