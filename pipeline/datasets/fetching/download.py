"""Download one file over HTTP, resuming an earlier attempt; the file appears only when it is complete."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from actionvit.errors import ActionVitError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 18
_PAUSES = (1, 3, 9)  # seconds before each retry

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes received and the total, if known."""


class _InterruptedError(Exception):
    """The connection broke; the received bytes are kept, and the rest can be requested."""


def download(
    url: str,
    to: Path,
    *,
    max_bytes: int,
    progress: Progress | None = None,
    timeout: float = 60,
    pauses: tuple[float, ...] = _PAUSES,
) -> None:
    """Download `url` to the file `to`, which appears only when it is complete.

    The bytes received so far are kept in `to` + `.part`, with the server's validator beside them, so that a later call
    requests only the rest, and starts again if the server's file has changed (RFC 9110, sections 13.1.5 and 14.2).

    Parameters
    ----------
    url : str
        http or https.
    to : Path
        The new file; its folder must exist.
    max_bytes : int
        A larger file is refused.
    progress : callable, optional
    timeout : float
        Seconds of silence after which the connection counts as broken.
    pauses : tuple of float
        Seconds to wait before each retry.

    Raises
    ------
    ActionVitError
        If the address is wrong, the file too big, the disk too small, or every attempt was interrupted.
    """
    if not url.startswith(("http://", "https://")):
        raise ActionVitError(f"download: `{url}` is not an http or https address")
    part, info = to.with_name(to.name + ".part"), to.with_name(to.name + ".part.json")
    for pause in (*pauses, None):
        try:
            _attempt(url, part, info, max_bytes=max_bytes, progress=progress, timeout=timeout)
            break
        except _InterruptedError as error:
            have = part.stat().st_size if part.exists() else 0
            if pause is None:
                raise ActionVitError(
                    f"download of {url} was cut short after {have:,} bytes ({error}); run it again to go on from there"
                ) from error
            logger.info("%s: %s after %d bytes; trying again in %s s", url, error, have, pause)
            time.sleep(pause)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(to)
    info.unlink(missing_ok=True)


def _attempt(url: str, part: Path, info: Path, *, max_bytes: int, progress: Progress | None, timeout: float) -> None:
    """Request the missing bytes and append them; raise _InterruptedError if fewer come than announced."""
    have, validator = _resumable(url, part, info)
    request = urllib.request.Request(url, headers={"User-Agent": "actionvit", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            resumed = response.status == 206 and _range_start(response) == have
            if response.status == 206 and not resumed:
                raise _InterruptedError("the server answered with another range")
            have = have if resumed else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            _check_room(url, part, have, total, max_bytes)
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            info.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")
            _receive(url, response, part, have, total, max_bytes=max_bytes, progress=progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the received bytes are not the beginning of the server's file
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server's file has changed") from error
        if error.code in (408, 429) or error.code >= 500:
            raise _InterruptedError(f"the server answered {error.code}") from error
        raise ActionVitError(
            f"download of {url}: the server answered {error.code} {error.reason};"
            " get the file by other means and give it with from=FILE"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _InterruptedError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _receive(
    url: str,
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    total: int | None,
    *,
    max_bytes: int,
    progress: Progress | None,
) -> None:
    with part.open("ab" if have else "wb") as stream:
        while block := response.read(_BLOCK):
            have += len(block)
            if have > max_bytes:
                raise ActionVitError(
                    f"download of {url}: more than the {max_bytes:,} bytes expected at most; not taken"
                )
            stream.write(block)
            if progress:
                progress(have, total)
    if total is not None and have < total:
        raise _InterruptedError(f"{total - have:,} bytes are missing")


def _resumable(url: str, part: Path, info: Path) -> tuple[int, str]:
    """Return the number of bytes received and the validator to resume with; (0, "") to start again."""
    try:
        record = json.loads(info.read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    # A weak ETag identifies the meaning, not the bytes.
    usable = record.get("url") == url and record.get("validator") and not record["validator"].startswith("W/")
    return (have, str(record["validator"])) if usable and have else (0, "")


def _range_start(response: http.client.HTTPResponse) -> int:
    unit, _, rest = (response.headers.get("Content-Range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else -1


def _check_room(url: str, part: Path, have: int, total: int | None, max_bytes: int) -> None:
    if total is None:
        return
    if total > max_bytes:
        raise ActionVitError(f"download of {url}: {total:,} bytes, expected {max_bytes:,} at most; not taken")
    if (free := shutil.disk_usage(part.parent).free) < total - have:
        raise ActionVitError(
            f"download of {url}: {total - have:,} bytes to come, {free:,} free in `{part.parent}`;"
            " make room or choose another disk with output="
        )
