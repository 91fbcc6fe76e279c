"""Weights from the Hugging Face hub: the local cache first, then a download."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actionvit.errors import ActionVitError

log = logging.getLogger(__name__)

FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin")
_REMEDY = "give --weights FOLDER (a copy made elsewhere), or set HF_ENDPOINT to a mirror, HF_HOME to a filled cache"


def cached(repo: str) -> Path | None:
    """Return the folder of a repository that the local hub cache holds completely enough to load, else None."""
    from huggingface_hub import try_to_load_from_cache

    held = {name: path for name in FILES if isinstance(path := try_to_load_from_cache(repo, name), str)}
    complete = "config.json" in held and ("model.safetensors" in held or "pytorch_model.bin" in held)
    return Path(held["config.json"]).parent if complete else None


def fetch(repo: str) -> Path:
    """Return a folder with a repository's configuration and weights, downloading what the cache lacks.

    Raises
    ------
    ActionVitError
        If the hub cannot be reached, or has no such repository, or no weights in it; with the remedy.
    """
    if folder := cached(repo):
        _with_processor(repo, folder.name)
        return folder
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError

    def download(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repo, name))
        except RemoteEntryNotFoundError:
            return None

    try:
        with _muted():
            config = download(FILES[0])
            download(FILES[1])
            weights = config and (download(FILES[2]) or download(FILES[3]))
    except RepositoryNotFoundError as error:
        raise ActionVitError(
            f"weights {repo}: no such folder here, and no such public repository on the hub"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ActionVitError(
            f"weights {repo}: not in the local cache, and the hub cannot be reached; {_REMEDY}"
        ) from error
    except Exception as error:  # transport errors come from another library with every version of the client
        raise ActionVitError(f"weights {repo}: the download failed ({_reason(error)}); {_REMEDY}") from error
    if config is None or weights is None:
        raise ActionVitError(f"weights {repo}: the repository lacks {' or '.join(FILES[2:] if config else FILES[:1])}")
    return config.parent


def _with_processor(repo: str, revision: str) -> None:
    """Fetch the processor's configuration, of the weights' revision, where the cache does not know of one.

    A program that loads models alone leaves such a cache behind; without it pixels would silently be others.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if try_to_load_from_cache(repo, FILES[1], revision=revision) is not None:
        return
    try:
        with _muted():
            hf_hub_download(repo, FILES[1], revision=revision)
    except RemoteEntryNotFoundError:
        return
    except Exception as error:
        log.warning(
            "weights %s: %s is not in the local cache (%s): pixels are scaled as TimeSformer's own code does",
            repo,
            FILES[1],
            _reason(error),
        )


@contextmanager
def _muted() -> Iterator[None]:
    """Keep the client's account of each retry to itself: what it comes to is said in one line."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}" if text else type(error).__name__
