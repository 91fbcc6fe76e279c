"""Upload of an exported folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from actionvit.errors import ActionVitError, SettingError
from actionvit.text import first_line


def files_to_push(folder: Path) -> list[tuple[str, int]]:
    """Return the name and the size in bytes of every file that `push` would send."""
    return [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())]


def check_repo_name(name: str) -> None:
    """Raise ActionVitError if a name is not of the form OWNER/NAME."""
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", name):
        raise SettingError(f"push: got {name!r}, expected OWNER/NAME")


def push(folder: Path, name: str) -> str:
    """Upload a folder's files to the model repository OWNER/NAME, created private if missing; return its address.

    The token is that of `hf auth login`, or HF_TOKEN.

    Raises
    ------
    ActionVitError
        If the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    check_repo_name(name)
    api = HfApi(library_name="actionvit")
    try:
        address = str(api.create_repo(name, private=True, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload model exported by actionvit")
    except Exception as error:  # the type of transport errors depends on the client's version
        reason = first_line(error)
        raise ActionVitError(
            f"{name}: cannot be pushed ({reason}); log in with `hf auth login`, or check the name"
        ) from error
    return address
