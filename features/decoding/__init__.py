"""Decode the sampled frames of video files and frame folders, in supervised worker processes. Imports no torch.

::

    requests = [DecodeRequest(path.name, path, (ClipSpec(num_frames=8, size=224),)) for path in paths]
    with closing(decode_stream(requests, workers=2)) as results:
        for result in results:  # one `Decoded` or `Failure` per request, in request order
            ...

`decode`, and `open_video` with `frames_at`, work in this process without supervision: a broken or hostile file may
end or block it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actionvit.lazy import lazy_names

if TYPE_CHECKING:
    from actionvit.features.decoding.frames import CountChangedError, DecodeError, Frames
    from actionvit.features.decoding.policy import DecodePolicy, decoder_version
    from actionvit.features.decoding.pool.messages import Decoded, DecodeRequest
    from actionvit.features.decoding.pool.supervisor import available_cores, decode_stream
    from actionvit.features.decoding.video import Video, decode, open_video, sample_frames

__all__ = [
    "CountChangedError",
    "DecodeError",
    "DecodePolicy",
    "DecodeRequest",
    "Decoded",
    "Frames",
    "Video",
    "available_cores",
    "decode",
    "decode_stream",
    "decoder_version",
    "open_video",
    "sample_frames",
]

_MODULES = {
    "CountChangedError": "frames",
    "DecodeError": "frames",
    "Frames": "frames",
    "DecodePolicy": "policy",
    "decoder_version": "policy",
    "DecodeRequest": "pool.messages",
    "Decoded": "pool.messages",
    "available_cores": "pool.supervisor",
    "decode_stream": "pool.supervisor",
    "Video": "video",
    "decode": "video",
    "open_video": "video",
    "sample_frames": "video",
}

# Import a public name on first use: a worker must be tied to its parent before numpy is loaded.
__getattr__ = lazy_names(__name__, _MODULES)
