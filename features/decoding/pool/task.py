"""The work of a decoding worker: it decodes one request after the other and returns every error as a `Failure`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from actionvit.features.decoding.container import require_regular
from actionvit.features.decoding.frames import Allocate, DecodeError
from actionvit.features.decoding.policy import DecodePolicy
from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
from actionvit.features.decoding.video import Video, open_video, sample_frames
from actionvit.features.failures import Failure, Reason
from actionvit.features.fingerprint import NO_FILE, Fingerprint, content_digest, fingerprint, segment_digest
from actionvit.features.video_record import VideoRecord

OUT_OF_MEMORY = "needs more memory than a worker may have"


class RequestDecoder:
    """Decodes requests in this process; keeps a video open for the next segment of it.

    Parameters
    ----------
    policy : DecodePolicy
    allocate : callable
        Makes the arrays that frames are decoded into.
    """

    def __init__(self, policy: DecodePolicy, allocate: Allocate = np.empty) -> None:
        self._policy, self._allocate = policy, allocate
        self._stack = ExitStack()
        self._open: tuple[Path, Fingerprint, str, Video] | None = None

    def decode(self, request: DecodeRequest) -> Decoded | Failure:
        """Decode the frames of a request; any error becomes a `Failure`."""
        began = time.perf_counter()
        result = self._decode(request, began)
        if request.segment is None or isinstance(result, Failure):
            self.close()
        return result

    def close(self) -> None:
        """Close the video that was kept open."""
        self._open = None
        self._stack.close()

    def _decode(self, request: DecodeRequest, began: float) -> Decoded | Failure:
        backend = self._policy.backend
        try:
            for _ in range(2):
                before, digest, video = self._video(request.path)
                frames = sample_frames(video, request.specs, self._policy, request.segment)
                if fingerprint(request.path) == before:
                    if request.segment is not None:
                        digest = segment_digest(digest, request.segment)
                    record = VideoRecord(request.id, digest, before, frames.count, frames.flags, frames.backend)
                    return Decoded(record, frames, time.perf_counter() - began)
                self.close()
        except MemoryError:
            return failure(request, "memory", OUT_OF_MEMORY, backend)
        except DecodeError as error:
            return failure(request, error.reason, error.detail, error.backend, error.frames_decoded)
        except OSError as error:
            return failure(request, "missing", error.strerror or str(error))
        except Exception as error:  # unexpected decoder error: fail this video only
            return failure(request, "crashed", f"{type(error).__name__}: {error}")
        return failure(request, "corrupt", "the file changes while it is read", backend)

    def _video(self, path: Path) -> tuple[Fingerprint, str, Video]:
        """Return fingerprint, content digest and the open video, opened anew if another one or none is open."""
        if self._open is not None and self._open[0] == path and self._open[1] == fingerprint(path):
            return self._open[1:]
        self.close()
        require_regular(path)
        before, digest = fingerprint(path), content_digest(path)
        video = self._stack.enter_context(open_video(path, self._policy, allocate=self._allocate))
        self._open = path, before, digest, video
        return before, digest, video


def failure(request: DecodeRequest, reason: Reason, detail: str, backend: str = "", frames_decoded: int = 0) -> Failure:
    """Return the record of a failure, with the file's present fingerprint but without the decoder's version.

    A worker that is out of memory could not look up the version.
    """
    try:
        now = fingerprint(request.path)
    except OSError:
        now = NO_FILE
    return Failure(
        id=request.id,
        reason=reason,
        detail=detail,
        backend=backend,
        frames_decoded=frames_decoded,
        fingerprint=now,
    )
