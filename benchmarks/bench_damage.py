"""Measure the detection of damage: break copies of intact videos in three ways and compare frames with the originals.

    python tests/support/video_corpus.py corpus
    python benchmarks/bench_damage.py corpus data/hmdb51      # two minutes
    python benchmarks/bench_damage.py --kills 1000            # half an hour

A broken copy is refused, kept with a flag, or kept without; in the last two cases its sampled frames (8, uniform) are
intact or changed. The last column counts undetected changes. A supervised worker decodes the copies, so that a crash
or a hang would be counted.

`--kills N` ends commands by SIGKILL at N random moments, runs each again and compares its published files.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import av
import machine
import numpy as np

from actionvit.features.decoding import Decoded, DecodeError, DecodePolicy, DecodeRequest, decode, decode_stream
from actionvit.features.failures import Failure
from actionvit.features.sampling import ClipSpec

SPEC = ClipSpec(num_frames=8, size=224)
OUTCOMES = ("refused", "flagged, intact", "flagged, changed", "unseen, intact", "unseen, changed")


def flip(data: bytearray, rnd: random.Random) -> None:
    data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)


def blank(data: bytearray, rnd: random.Random) -> None:
    start = rnd.randrange(max(1, len(data) - 512))
    data[start : start + 512] = bytes(512)


def cut(data: bytearray, rnd: random.Random) -> None:
    del data[rnd.randrange(len(data)) :]


WAYS = {"one bit flipped": flip, "512 bytes zeroed": blank, "cut short": cut}


def codec(path: Path) -> str | None:
    """Return the container and codec of a video without damage."""
    try:
        if decode(path, [SPEC]).flags:
            return None
    except DecodeError:
        return None
    with av.open(str(path)) as container:
        return f"{container.streams.best('video').codec_context.name} {path.suffix}"


def all_frames(path: Path) -> np.ndarray:
    """Return all frames of an intact video, upright."""
    return decode(path, [ClipSpec(num_frames=decode(path, [SPEC]).count, size=224)]).data


def outcome(decoded: Decoded | Failure, sound: set[bytes]) -> str:
    if isinstance(decoded, Failure):
        return "refused"
    frames = decoded.frames
    same = all(image.tobytes() in sound for image in frames.data)
    return f"{'flagged' if frames.flags else 'unseen'}, {'intact' if same else 'changed'}"


def kills(count: int) -> dict:
    """Return what `tests/support/kill_commands.py` prints."""
    script = Path(__file__).parents[1] / "tests" / "support" / "kill_commands.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), folder, str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="*", help="folders of intact videos")
    parser.add_argument("--number", type=int, default=300, help="broken copies per codec and kind of damage")
    parser.add_argument("--kills", type=int, default=0, help="kills of commands, instead of broken videos")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "damage.json")
    options = parser.parse_args()
    earlier = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    if options.kills:
        machine.write(options.out, {**earlier, "kills": kills(options.kills)})
        return
    by_codec: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for root in options.root for path in root.rglob("*") if path.is_file()):
        if (name := codec(path)) and path.stat().st_size < 2 << 20:
            by_codec[name].append(path)
    rows, reasons = [], Counter[str]()
    print(f"{'codec':16}{'way':20}" + "".join(f"{name:>18}" for name in OUTCOMES))
    for name, paths in sorted(by_codec.items()):
        rnd = random.Random(0)
        chosen = [rnd.choice(paths) for _ in range(options.number)]
        frames: dict[Path, set[bytes]] = {}
        for way, act in WAYS.items():
            seen: Counter[str] = Counter()
            with tempfile.TemporaryDirectory() as folder:
                requests = []
                for number, path in enumerate(chosen):
                    if path not in frames:
                        frames[path] = {image.tobytes() for image in all_frames(path)}
                    data = bytearray(path.read_bytes())
                    act(data, rnd)
                    broken = Path(folder, f"{number}{path.suffix}")
                    broken.write_bytes(data)
                    requests.append(DecodeRequest(str(number), broken, (SPEC,)))
                stream = decode_stream(requests, policy=DecodePolicy(), workers=1, timeout=60)
                for path, decoded in zip(chosen, stream, strict=True):
                    seen[outcome(decoded, frames[path])] += 1
                    reasons.update([decoded.reason] if isinstance(decoded, Failure) else ())
            counts = {kind: seen[kind] for kind in OUTCOMES}
            rows.append({"codec": name, "videos": len(set(chosen)), "way": way, "broken": options.number, **counts})
            print(f"{name:16}{way:20}" + "".join(f"{count / options.number:18.1%}" for count in counts.values()))
    print("refused:", ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    result = {"machine": machine.describe("av"), "ffmpeg": av.ffmpeg_version_info}
    machine.write(options.out, {**earlier, **result, "refused": dict(reasons), "rows": rows})


if __name__ == "__main__":
    main()
