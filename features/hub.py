"""Model folders from the Hugging Face hub: the local cache first, then a download."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actionvit.errors import ActionVitError, SettingError
from actionvit.features.hf_folder import PROCESSOR_FILES

logger = logging.getLogger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONNECT_SECONDS = 5.0
"""Time for the hub to answer, before it counts as unreachable."""
_REMEDY = "give a local folder (a copy made elsewhere), or set HF_ENDPOINT to a mirror, HF_HOME to a filled cache"


def cached(repo: str) -> Path | None:
    """Return the folder of a repository whose configuration and weights are in the local cache, otherwise None."""
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", *WEIGHT_FILES)
    paths = {name: path for name in files if isinstance(path := try_to_load_from_cache(repo, name), str)}
    complete = "config.json" in paths and len(paths) > 1
    return Path(paths["config.json"]).parent if complete else None


def fetch(repo: str) -> Path:
    """Return a folder with a repository's configuration and weights, downloading the files that the cache lacks.

    Raises
    ------
    ActionVitError
        If the hub cannot be reached, or has no such repository, or no weights in it; with the remedy.
    """
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = cached(repo)
    except HFValidationError as error:
        raise SettingError(f"weights {repo}: no such folder; give a local folder or a hub id, OWNER/NAME") from error
    if folder:
        _fetch_processor(repo, folder.name)
        return folder
    if problem := _unreachable():
        raise ActionVitError(
            f"weights {repo}: not in the local cache, and the hub cannot be reached ({problem}); {_REMEDY}"
        )
    try:
        config = _download(repo, "config.json")
        for name in PROCESSOR_FILES:
            _download(repo, name)
        weights = config and (_download(repo, WEIGHT_FILES[0]) or _download(repo, WEIGHT_FILES[1]))
    except RepositoryNotFoundError as error:
        raise ActionVitError(
            f"weights {repo}: no such folder here, and no such public repository on the hub"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ActionVitError(
            f"weights {repo}: not in the local cache, and the hub cannot be reached; {_REMEDY}"
        ) from error
    except Exception as error:  # the type of transport errors depends on the client's version
        raise ActionVitError(f"weights {repo}: the download failed ({_first_line(error)}); {_REMEDY}") from error
    if config is None or weights is None:
        raise ActionVitError(
            f"weights {repo}: the repository lacks {' or '.join(WEIGHT_FILES) if config else 'config.json'}"
        )
    return config.parent


def _unreachable() -> str:
    """Return why the hub does not answer, empty if it does: one request, as the client tries for 24 seconds."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS, follow_redirects=False)
    except Exception as error:  # the type of transport errors depends on the client's version
        return _first_line(error)
    return ""


def _download(repo: str, name: str, revision: str | None = None) -> Path | None:
    """Return a file of a repository, None where the repository lacks it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _quiet_client():
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except RemoteEntryNotFoundError:
            return None


def _fetch_processor(repo: str, revision: str) -> None:
    """Fetch the processor settings of the weights' revision where the cache does not record whether they exist.

    A program that loads only the model leaves such a cache behind; pixels would then be scaled differently.
    """
    from huggingface_hub import try_to_load_from_cache

    missing = [name for name in PROCESSOR_FILES if try_to_load_from_cache(repo, name, revision=revision) is None]
    problem = _unreachable() if missing else ""
    for name in missing:
        try:
            if not problem:
                _download(repo, name, revision)
                continue
        except Exception as error:
            problem = _first_line(error)
        logger.warning(
            "weights %s: %s is not in the local cache (%s): without it pixels get the default normalization",
            *(repo, name, problem),
        )


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Suppress the client's log of each retry: the outcome is reported in one line."""
    client = logging.getLogger("huggingface_hub")
    before = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(before)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}" if text else type(error).__name__
