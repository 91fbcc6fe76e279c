"""Small datasets of drawn clips in the layouts of common formats, with their names, encodings and quirks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from PIL import Image

from actionvit.pipeline.datasets.synthetic.dataset import write_avi
from actionvit.pipeline.datasets.synthetic.motions import draw_clip

CLASSES = ("move_left", "grow")
CLIPS = 6
"""Clips per class in each tree: four train, two test or validate."""


def pixels(number: int, label: str) -> np.ndarray:
    """Return a clip of 6 frames of 32 x 32."""
    return draw_clip(label, np.random.RandomState(number), frames=6, size=32)


_ENCODED = TemporaryDirectory(prefix="clips-")  # removed when the process ends


@cache
def _clip(number: int, label: str, suffix: str) -> Path:
    """Return a drawn clip, encoded once per process."""
    file = Path(_ENCODED.name) / f"{label}-{number}{suffix}"
    if suffix == ".avi":
        write_avi(file, pixels(number, label))
        return file
    codec = "libvpx" if suffix == ".webm" else "mpeg4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for picture in pixels(number, label):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file


def put(file: Path, number: int, label: str) -> Path:
    """Put a clip at a path; its suffix decides the container."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_clip(number, label, file.suffix), file)
    return file


def put_frames(folder: Path, number: int, label: str, pattern: str = "{:05d}.jpg", first: int = 1) -> Path:
    """Put a clip's frames into a folder."""
    folder.mkdir(parents=True)
    for place, picture in enumerate(pixels(number, label)):
        Image.fromarray(picture).save(folder / pattern.format(place + first))
    return folder


def clips() -> Iterable[tuple[int, int, str, str]]:
    """Yield number, class number, class name and set (train or test) of each clip."""
    for number in range(CLIPS * len(CLASSES)):
        yield number, number % 2, CLASSES[number % 2], "train" if number < 4 * len(CLASSES) else "test"


def write(file: Path, lines: Iterable[str], *, end: str = "\n", encoding: str = "utf-8") -> Path:
    """Write a list with the given line ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    return file


def ucf101(root: Path) -> Path:
    """UCF101: CRLF, trailing blanks, numbers from 1, names in another case than the folder, three splits."""
    lines: dict[str, list[str]] = {f"{name}list{n:02}": [] for name in ("train", "test") for n in (1, 2, 3)}
    folders = {"move_left": "MoveLeft", "grow": "Grow"}
    for number, code, label, _ in clips():
        path = f"{folders[label]}/v_{folders[label].upper()}_g{number // 2 + 1:02}_c01.avi"
        put(root / "UCF-101" / path, number, label)
        for split in (1, 2, 3):
            if (number // 2 + split) % 3 == 0:
                lines[f"testlist{split:02}"].append(path)
            else:
                lines[f"trainlist{split:02}"].append(f"{path} {code + 1} ")
    for name, content in lines.items():
        write(root / "ucfTrainTestlist" / f"{name}.txt", content, end="\r\n")
    write(root / "ucfTrainTestlist" / "classInd.txt", ["1 MoveLeft", "2 Grow"], end="\r\n")
    return root / "UCF-101"


def mmaction2(root: Path) -> Path:
    """mmaction2: `path label` lists of two sets and a label map beside the folder of videos."""
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for number, code, label, name in clips():
        path = f"{label}/clip {number}.mp4"
        put(root / "videos" / path, number, label)
        lines["train" if name == "train" else "val"].append(f"{path} {code}")
    for name, content in lines.items():
        write(root / f"drawn_{name}_list_videos.txt", content)
    write(root / "label_map_drawn.txt", CLASSES)
    return root


def videomae(root: Path) -> Path:
    """VideoMAE and V-JEPA: `train.csv`, `val.csv`, `test.csv` without header, separated by a blank, absolute paths."""
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, code, label, name in clips():
        path = put(root.absolute() / "clips" / f"{number}.mp4", number, label)
        lines["val" if number in (8, 9) else name].append(f"{path} {code}")
    for name, content in lines.items():
        write(root / f"{name}.csv", content)
    return root / "train.csv"


def slowfast(root: Path) -> Path:
    """SlowFast and OneVision: `path,label` without header, words for labels, as one list."""
    lines = []
    for number, _, label, _ in clips():
        put(root / "clips" / f"{number}, {label}.mp4", number, label)
        lines.append(f'"clips/{number}, {label}.mp4",{label}')
    return write(root / "all.csv", lines)


def rawframes(root: Path) -> Path:
    """mmaction2 and TSN: `folder frames label`, frames called `img_00001.jpg`."""
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for number, code, label, name in clips():
        put_frames(root / "rawframes" / label / f"clip_{number}", number, label, "img_{:05d}.jpg")
        lines["train" if name == "train" else "val"].append(f"{label}/clip_{number} 6 {code}")
    for name, content in lines.items():
        write(root / f"drawn_{name}_split_1_rawframes.txt", content)
    return root


def unlabeled(root: Path) -> Path:
    """VideoMAE v2's lists for pretraining: `path 0 -1`."""
    paths = [put(root / "clips" / f"{number}.mp4", number, label).name for number, _, label, _ in clips()]
    return write(root / "pretrain.csv", [f"clips/{path} 0 -1" for path in paths])


def kinetics(root: Path) -> Path:
    """Kinetics from CVDF: times in names padded with zeros, one listed video gone, a test set without labels."""
    rows: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, _, label, name in clips():
        video, start = f"-Ab{number:02}_x9Zq", 7 * number
        folder = "train" if name == "train" else "val"
        put(root / folder / f"{video}_{start:06d}_{start + 10:06d}.mp4", number, label)
        rows[folder].append(f'"{label}",{video},{start},{start + 10},{folder}')
    rows["train"].append('"grow",gone0000000,1,11,train')
    put(root / "test" / "unknown0001_000003_000013.mp4", 99, "grow")
    for name, content in rows.items():
        if name != "test":
            write(root / "annotations" / f"{name}.csv", ["label,youtube_id,time_start,time_end,split", *content])
    write(
        root / "annotations" / "test.csv",
        ["youtube_id,time_start,time_end,split", "unknown0001,3,13,test"],
    )
    return root


def ssv2(root: Path) -> Path:
    """Something-Something v2: webm files in one folder, JSON lists with templates, a test list without labels."""
    records: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    template = {"move_left": "Moving [something] left", "grow": "Growing [something]"}
    for number, _, label, name in clips():
        put(root / "20bn-something-something-v2" / f"{1000 + number}.webm", number, label)
        records["train" if name == "train" else "validation"].append(
            {
                "id": str(1000 + number),
                "label": template[label].replace("[something]", "a disc"),
                "template": template[label],
                "placeholders": ["a disc"],
            }
        )
    put(root / "20bn-something-something-v2" / "2000.webm", 77, "grow")
    records["test"].append({"id": "2000"})
    for name, content in records.items():
        write(root / "labels" / f"{name}.json", [json.dumps(content)])
    labels = {text.replace("[", "").replace("]", ""): str(code) for code, text in enumerate(template.values())}
    write(root / "labels" / "labels.json", [json.dumps(labels)])
    return root


def diving48(root: Path) -> Path:
    """Diving48: JSON lists with numbers, a vocabulary, files called by recording and dive."""
    records: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for number, code, label, name in clips():
        video = f"qEqCX_{number // 3}_{number:05}"
        put(root / "rgb" / f"{video}.mp4", number, label)
        records[name].append({"vid_name": video, "label": code, "start_frame": 0, "end_frame": 6})
    for name, content in records.items():
        write(root / f"Diving48_V2_{name}.json", [json.dumps(content)])
    write(root / "Diving48_vocab.json", [json.dumps([["Back", "15som", "05Twis", "FREE"], ["Inward", "25som"]])])
    return root


def jester(root: Path) -> Path:
    """Jester: folders of JPEG frames called by number, `id;label` lists, a test list of ids alone."""
    lines: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, _, label, name in clips():
        put_frames(root / "20bn-jester-v1" / str(number + 1), number, label)
        words = {"move_left": "Swiping Left", "grow": "Zooming In With Full Hand"}[label]
        lines["train" if name == "train" else "validation"].append(f"{number + 1};{words}")
    put_frames(root / "20bn-jester-v1" / "500", 50, "grow")
    lines["test"].append("500")
    for name, content in lines.items():
        write(root / f"jester-v1-{name}.csv", content)
    write(root / "jester-v1-labels.csv", ["Swiping Left", "Zooming In With Full Hand"])
    return root


def videofolder(root: Path, suffix: str = ".csv") -> Path:
    """A Hugging Face videofolder: a metadata file per split folder, paths relative to it."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for number, _, label, name in clips():
        folder = "train" if name == "train" else "validation"
        put(root / folder / f"{number:04}.mp4", number, label)
        rows[folder].append((f"{number:04}.mp4", label))
    for name, content in rows.items():
        if suffix == ".csv":
            write(root / name / "metadata.csv", ["file_name,label", *(f"{file},{label}" for file, label in content)])
        else:
            records = (json.dumps({"file_name": file, "label": label}) for file, label in content)
            write(root / name / "metadata.jsonl", records)
    return root


def videofolder_jsonl(root: Path) -> Path:
    """The same with `metadata.jsonl`."""
    return videofolder(root, ".jsonl")


def split_folders(root: Path) -> Path:
    """`split/CLASS/VIDEO` as ImageFolder and Kaggle have it."""
    for number, _, label, name in clips():
        put(root / name / label / f"{number}.mp4", number, label)
    return root


def nested(root: Path) -> Path:
    """UCF11: a folder per group below each class folder."""
    for number, _, label, _ in clips():
        put(root / label / f"group_{number // 4:02}" / f"{number}.avi", number, label)
    return root


def tsv(root: Path) -> Path:
    """A table as Excel writes it: other common column names, tab-separated, with three official splits."""
    lines = ["video_path\tclass\tsplit1\tsplit2\tsplit3\tgroup"]
    for number, _, label, _ in clips():
        put(root / "clips" / f"{number}.mp4", number, label)
        sets = ["testing" if (number // 2 + split) % 3 == 0 else "training" for split in (1, 2, 3)]
        lines.append("\t".join([f"clips/{number}.mp4", label, *sets, f"film {number // 2}"]))
    return write(root / "clips.tsv", lines, end="\r\n", encoding="utf-16")


def frame_folders(root: Path) -> Path:
    """Class folders of frame folders in the numbering styles in use."""
    styles = ("img_{:05d}.jpg", "frame{}.png", "{:04d}.jpg", "image_{:05d}.webp", "{}.bmp")
    for number, _, label, _ in clips():
        put_frames(root / label / f"clip{number}", number, label, styles[number % len(styles)], first=number % 2)
    return root


TREES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "ucf101": (ucf101, "ucf101"),
    "mmaction2": (mmaction2, "list"),
    "videomae": (videomae, "list"),
    "slowfast": (slowfast, "list"),
    "rawframes": (rawframes, "frame-list"),
    "unlabeled": (unlabeled, "list"),
    "kinetics": (kinetics, "kinetics"),
    "ssv2": (ssv2, "ssv2"),
    "diving48": (diving48, "diving48"),
    "jester": (jester, "jester"),
    "videofolder": (videofolder, "videofolder"),
    "videofolder-jsonl": (videofolder_jsonl, "videofolder"),
    "split-folders": (split_folders, "sets"),
    "nested": (nested, "folder"),
    "tsv": (tsv, "csv"),
    "frame-folders": (frame_folders, "frames"),
}
"""Function that makes the tree and returns ROOT, and the format as which it is detected."""
