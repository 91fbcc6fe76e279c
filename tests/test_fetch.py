"""Fetching a dataset: interrupted downloads from a loopback server, hostile archives, nested rars."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import stat
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from actionvit.errors import ActionVitError
from actionvit.pipeline.datasets import load_dataset
from actionvit.pipeline.datasets.fetching import unpack as unpacking
from actionvit.pipeline.datasets.fetching.download import download
from actionvit.pipeline.datasets.fetching.fetch import SOURCES, fetch
from actionvit.pipeline.datasets.fetching.unpack import BadArchiveError, Budget, unpack

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
NAMES = [f"{label}/S{n}_{label}_u_nm_np1_fr_goo_0.avi" for label in ("clap", "run") for n in range(3)]


class Server(http.server.ThreadingHTTPServer):
    """Serves `body`; cuts the first `cuts` responses short; records the requested ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag, self.cuts, self.ranges_work = BODY, '"one"', 0, True
        self.length_sent = True
        self.status = 200
        self.requested: list[str | None] = []
        self.files: dict[str, bytes] = {}
        """Other bodies, by path."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}/a%20set.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        body = server.files.get(self.path.lstrip("/"), server.body)
        server.requested.append(wanted)
        start = 0
        if server.status != 200:
            self.send_error(server.status)
            return
        if wanted and server.ranges_work and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.length_sent:
            self.send_header("Content-Length", str(len(body) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        body = body[start:]
        if server.cuts:
            server.cuts -= 1
            body = body[:300_000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(server: Server, to: Path, **options) -> None:
    download(server.url, to, **{"max_bytes": 10**7, "pauses": (), "timeout": 5} | options)


def test_a_download_is_whole_and_leaves_nothing_else(server, tmp_path):
    seen = []
    get(server, tmp_path / "f", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "f").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert seen[-1] == (len(BODY), len(BODY)) and seen == sorted(seen)


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = 2
    for have in (300_000, 600_000):
        with pytest.raises(ActionVitError, match=f"cut short after {have:,} bytes .*run it again to go on"):
            get(server, tmp_path / "f")
        assert not (tmp_path / "f").exists() and (tmp_path / "f.part").stat().st_size == have
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.requested == [None, "bytes=300000-", "bytes=600000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_it_tries_again_by_itself(server, tmp_path):
    server.cuts = 2
    get(server, tmp_path / "f", pauses=(0, 0))
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    server.cuts = 1
    with pytest.raises(ActionVitError, match="cut short"):
        get(server, tmp_path / "f")
    server.body, server.etag = BODY[::-1], '"two"'
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_it_starts_anew(server, tmp_path, etag):
    server.cuts, server.etag = 1, etag
    with pytest.raises(ActionVitError, match="cut short"):
        get(server, tmp_path / "f")
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY and server.requested == [None, None]


def test_a_server_without_ranges_sends_it_all(server, tmp_path):
    server.cuts, server.ranges_work = 1, False
    with pytest.raises(ActionVitError, match="cut short"):
        get(server, tmp_path / "f")
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY and server.requested == [None, "bytes=300000-"]


def test_too_big_is_refused_before_and_while_it_comes(server, tmp_path):
    with pytest.raises(ActionVitError, match="1,024,000 bytes, expected 500,000 at most"):
        get(server, tmp_path / "f", max_bytes=500_000)
    server.length_sent = False
    with pytest.raises(ActionVitError, match="more than the 500,000 bytes"):
        get(server, tmp_path / "f", max_bytes=500_000)
    assert not (tmp_path / "f").exists()


def test_addresses_that_do_not_work(server, tmp_path):
    server.status = 404
    with pytest.raises(ActionVitError, match=r"answered 404 .*from=FILE"):
        get(server, tmp_path / "f")
    server.status = 503
    with pytest.raises(ActionVitError, match="the server answered 503"):
        get(server, tmp_path / "f")
    with pytest.raises(ActionVitError, match="not an http or https"):
        download("file:///etc/passwd", tmp_path / "f", max_bytes=10)
    with pytest.raises(ActionVitError, match=r"cut short after 0 bytes .*refused"):
        download("http://127.0.0.1:9/f", tmp_path / "f", max_bytes=10, pauses=())


def make_zip(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    return file


def make_tar(file: Path | io.BytesIO, members: list[tarfile.TarInfo], mode: str = "w") -> Path | io.BytesIO:
    where = {"fileobj": file} if isinstance(file, io.BytesIO) else {"name": file}
    with tarfile.open(**where, mode=mode) as opened:
        for member in members:
            opened.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 3) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


def plenty() -> Budget:
    return Budget(10**7, 1000)


HOSTILE = [
    "../evil",
    "a/../../evil",
    "/tmp/actionvit-evil",
    "..\\evil",
    "\\evil",
    "C:\\evil",
    "C:evil",
    "a/..",
    "\\\\host\\evil",
]


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path, name, kind):
    file = tmp_path / "in" / f"bad.{kind}"
    file.parent.mkdir()
    if kind == "zip":
        make_zip(file, {"fine": b"1", name: b"2"})
    else:
        make_tar(file, [member("fine"), member(name)])
    with pytest.raises(ActionVitError, match="leads out of the folder; not unpacked"):
        unpack(file, tmp_path / "out", plenty())
    assert everything(tmp_path) == ["in", f"in/bad.{kind}"]
    assert not Path("/tmp/actionvit-evil").exists()


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "fine"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(tmp_path, kind, link):
    file = tmp_path / "bad.tar.gz"
    make_tar(file, [member("fine"), member("odd", kind, link), member("odd/through")], "w:gz")
    with pytest.raises(ActionVitError, match="`odd` is a link or device"):
        unpack(file, tmp_path / "out", plenty())
    assert everything(tmp_path) == ["bad.tar.gz"]


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("odd")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as opened:
        opened.writestr(info, "/etc")
        opened.writestr("odd/through", "x")
    with pytest.raises(ActionVitError, match="`odd` is a link or device"):
        unpack(tmp_path / "bad.zip", tmp_path / "out", plenty())


def test_bombs_stop_at_the_budget(tmp_path):
    bomb = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(5_000_000)})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(ActionVitError, match="unpacks to more than was allowed"):
        unpack(bomb, tmp_path / "out", Budget(1_000_000, 10))
    many = make_zip(tmp_path / "many.zip", {f"{n}": b"" for n in range(20)})
    with pytest.raises(ActionVitError, match="more files than were allowed"):
        unpack(many, tmp_path / "out", Budget(1_000_000, 10))
    assert not (tmp_path / "out").exists()


def test_wrong_declared_size_does_not_help_a_bomb(tmp_path):
    file = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(5_000_000)})
    data = bytearray(file.read_bytes())
    for at in (data.index(b"PK\x01\x02") + 24, 22):  # uncompressed size, in the directory and at the member
        data[at : at + 4] = (10).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(ActionVitError):
        unpack(file, tmp_path / "out", Budget(1_000_000, 10))
    assert not (tmp_path / "out").exists()


def test_the_same_name_twice_is_refused(tmp_path):
    make_tar(tmp_path / "bad.tar", [member("a"), member("./a")])
    with pytest.raises(ActionVitError, match="holds `a` twice"):
        unpack(tmp_path / "bad.tar", tmp_path / "out", plenty())
    make_tar(tmp_path / "worse.tar", [member("a"), member("a/b")])
    with pytest.raises(ActionVitError, match="twice"):
        unpack(tmp_path / "worse.tar", tmp_path / "out", plenty())


def test_damaged_archives_and_other_files_are_named(tmp_path):
    good = make_zip(tmp_path / "good.zip", {"a": b"abc" * 1000})
    data = bytearray(good.read_bytes())
    data[45] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(data)
    make_tar(tmp_path / "good.tar.gz", [member("a", size=50_000)], "w:gz")
    (tmp_path / "short.tar.gz").write_bytes((tmp_path / "good.tar.gz").read_bytes()[:-20])
    (tmp_path / "page.zip").write_text("<!DOCTYPE html><title>Sign in</title>")
    for name, message in (("flipped.zip", "damaged"), ("short.tar.gz", "damaged"), ("page.zip", "it is a web page")):
        with pytest.raises(BadArchiveError, match=message) as caught:
            unpack(tmp_path / name, tmp_path / "out", plenty())
        assert name in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_no_permissions_are_taken_over(tmp_path):
    info = member("run.sh")
    info.mode = 0o6777
    make_tar(tmp_path / "a.tar", [info])
    unpack(tmp_path / "a.tar", tmp_path / "out", plenty())
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111 == 0


def as_rar(file: Path, members: dict[str, bytes]) -> Path:
    """Make a file that the fake programs below accept as a rar: its signature, then a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    file.write_bytes(b"Rar!\x1a\x07\x00" + buffer.getvalue())
    return file


FAKES = {
    "bsdtar": """
        import io, tarfile
        out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
        for name, data in members(sys.argv[-1].lstrip("@")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        out.close()
    """,
}


@pytest.fixture(params=FAKES)
def program(request, tmp_path, monkeypatch) -> str:
    """Put one program that "reads rar" on the path, and no other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / request.param
    start = textwrap.dedent(f"""\
        #!{sys.executable}
        import io, pathlib, sys, zipfile
        def members(file):
            data = pathlib.Path(file).read_bytes()
            if b"DAMAGE" in data:
                sys.exit("checksum error")
            with zipfile.ZipFile(io.BytesIO(data[7:])) as opened:
                return [(name, opened.read(name)) for name in opened.namelist()]
    """)
    script.write_text(start + textwrap.dedent(FAKES[request.param]))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return request.param


def test_rar_through_each_program(tmp_path, program):
    file = as_rar(tmp_path / "a.rar", {"clap/#1 (a)!.avi": b"video", "clap/b.avi": b"more"})
    unpack(file, tmp_path / "out", plenty())
    assert (tmp_path / "out" / "clap" / "#1 (a)!.avi").read_bytes() == b"video"
    assert everything(tmp_path / "out") == ["clap", "clap/#1 (a)!.avi", "clap/b.avi"]


def test_a_hostile_rar_is_refused_through_each_program(tmp_path, program):
    for number, name in enumerate(("../evil", "a/../../evil")):
        file = as_rar(tmp_path / f"{number}.rar", {"fine": b"1", name: b"2"})
        with pytest.raises(ActionVitError, match="leads out of the folder"):
            unpack(file, tmp_path / "deep" / "out", plenty())
        assert not (tmp_path / "deep" / "out").exists() and not (tmp_path / "deep" / "evil").exists()
    big = as_rar(tmp_path / "big.rar", {"zeros": bytes(100_000)})
    with pytest.raises(ActionVitError, match="more than was allowed"):
        unpack(big, tmp_path / "out", Budget(1000, 10))
    damaged = as_rar(tmp_path / "damaged.rar", {"a": b"DAMAGE"})
    with pytest.raises(ActionVitError, match=r"damaged\.rar"):
        unpack(damaged, tmp_path / "out", plenty())
    assert not (tmp_path / "out").exists()


def test_missing_bsdtar_is_reported_before_the_download(tmp_path, monkeypatch, server):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ActionVitError, match=r"needs a program .* install bsdtar .*or give a zip or tar"):
        fetch("hmdb51", tmp_path / "data")
    with pytest.raises(ActionVitError, match="needs a program"):
        fetch("hmdb51", tmp_path / "data", sources=[server.url.replace(".zip", ".rar")])
    assert server.requested == [] and everything(tmp_path) == []


def lists() -> dict[str, bytes]:
    """Three official lists per class for NAMES."""
    texts = {}
    for label in ("clap", "run"):
        names = [name.partition("/")[2] for name in NAMES if name.startswith(label)]
        for number in range(3):
            lines = [f"{name} {2 if n == number else 1} \n" for n, name in enumerate(names)]
            texts[f"testTrainMulti_7030_splits/{label}_test_split{number + 1}.txt"] = "".join(lines).encode()
    return texts


def test_hmdb51_as_the_lab_packs_it(tmp_path, program):
    """A rar of one rar a class, and a rar of lists; one class has no folder of its own in its rar."""
    inner = {}
    for label in ("clap", "run"):
        videos = {name if label == "clap" else name.partition("/")[2]: b"v" for name in NAMES if name.startswith(label)}
        inner[f"{label}.rar"] = as_rar(tmp_path / "inner.rar", videos).read_bytes()
    archives = [as_rar(tmp_path / "hmdb51_org.rar", inner), as_rar(tmp_path / "test_train_splits.rar", lists())]
    seen: list[tuple[str, int, int | None]] = []
    to = tmp_path / "data" / "hmdb51"
    fetched = fetch("hmdb51", to, sources=[str(file) for file in archives], progress=lambda *step: seen.append(step))
    assert (fetched.videos, fetched.classes, fetched.new) == (6, 2, True)
    data = load_dataset(to)
    assert [video.id for video in data.videos] == NAMES
    assert [len(split.test) for split in data.official] == [2, 2, 2]
    assert everything(to.parent)[0] == "hmdb51" and not list(to.parent.glob(".*"))
    assert ("unpack hmdb51_org.rar", 2, 2) in seen
    assert all(file.exists() for file in archives)
    assert not fetch("hmdb51", to).new


def test_a_mirror_s_zip_over_an_interrupted_download(tmp_path, server):
    file = make_zip(
        tmp_path / "m.zip",
        {f"HMDB51/videos/{n}": np.random.RandomState(len(n)).bytes(200_000) for n in NAMES} | lists(),
    )
    server.body, server.cuts = file.read_bytes(), 9
    to = tmp_path / "data" / "hmdb51"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "actionvit.pipeline.datasets.fetching.fetch.download", lambda *a, **k: download(*a, **k, pauses=())
        )
        with pytest.raises(ActionVitError, match="run it again"):
            fetch("hmdb51", to, sources=[server.url])
        assert not to.exists()
        server.cuts = 0
        assert fetch("hmdb51", to, sources=[server.url]).videos == 6
    assert server.requested[0] is None and server.requested[1] == "bytes=300000-"
    assert len(load_dataset(to).official) == 3 and not list(to.parent.glob(".*"))


def test_frame_folders_from_a_file(tmp_path):
    names = [f"HMDB_simp/{name.removesuffix('.avi')}/{n}.jpg" for name in NAMES for n in range(2)]
    file = make_zip(tmp_path / "archive.zip", dict.fromkeys(names, b"j") | {"__MACOSX/HMDB_simp/clap/._x": b""})
    fetched = fetch("hmdb_simp", tmp_path / "simp", sources=[str(file)])
    assert (fetched.videos, fetched.classes) == (6, 2)
    assert load_dataset(tmp_path / "simp").format == "frames"


def test_unfetchable_sets_name_the_remedy(tmp_path, server):
    with pytest.raises(ActionVitError, match="expected one of hmdb51, ucf101, hmdb_simp"):
        fetch("moments", tmp_path / "k")
    with pytest.raises(ActionVitError, match=r"scripts of .*kinetics-dataset"):
        fetch("kinetics", tmp_path / "k")
    for names, words in (
        (("kinetics400", "Kinetics-400", "k400", "kinetics700-2020"), ("cvdfoundation", "`annotations/`")),
        (("something-something", "ssv2", "something-something-v2", "sthv2"), ("account", "qualcomm.com", "`labels/`")),
        (("jester", "20bn-jester"), ("account", "qualcomm.com", "frame folders")),
        (("diving48", "Diving-48"), ("ucsd.edu", "Diving48_V2_train.json")),
    ):
        for name in names:
            with pytest.raises(ActionVitError) as caught:
                fetch(name, tmp_path / "k")
            assert all(word in str(caught.value) for word in (*words, "actionvit data check")), name
    with pytest.raises(ActionVitError, match="got `charades`, expected one of hmdb51, ucf101, hmdb_simp; for kinetics"):
        fetch("charades", tmp_path / "k")
    with pytest.raises(ActionVitError, match=r"without an account.*--from FILE\.zip"):
        fetch("hmdb_simp", tmp_path / "s")
    with pytest.raises(ActionVitError, match="no such file"):
        fetch("hmdb51", tmp_path / "h", sources=[str(tmp_path / "gone.zip")])
    empty = make_zip(tmp_path / "e.zip", {"readme.txt": b"x"})
    with pytest.raises(ActionVitError, match=r"no class folders and no split lists in `.*e\.zip`"):
        fetch("hmdb51", tmp_path / "h", sources=[str(empty)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ActionVitError, match="holds other files"):
        fetch("hmdb51", tmp_path / "full", sources=[str(empty)])
    server.body = b"<html>please sign in</html>"
    with pytest.raises(ActionVitError, match="it is a web page"):
        fetch("hmdb51", tmp_path / "h", sources=[server.url])
    assert not [path for path in tmp_path.rglob("*.zip") if path.parent.parent.name == ".h.fetch"]
    assert not (tmp_path / "h").exists()


def test_sources_name_licence_and_paper():
    for name, source in SOURCES.items():
        assert source.licence and source.citation and len(source.checksums) in (0, len(source.urls))
        assert "hmdb" not in name or ("CC BY 4.0" in source.licence and "ICCV 2011" in source.citation)


def test_a_tar_that_reads_rar_is_found_by_its_version(tmp_path, monkeypatch):
    script = tmp_path / "tar"
    script.write_text("#!/bin/sh\necho 'bsdtar 3.7.2 - libarchive 3.7.2'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert unpacking.find_bsdtar("x.rar") == str(script)
    script.write_text("#!/bin/sh\necho 'tar (GNU tar) 1.34'\n")
    with pytest.raises(ActionVitError, match="needs a program"):
        unpacking.find_bsdtar("x.rar")


def hmdb51_archives(tmp_path: Path) -> dict[str, bytes]:
    """The lab's two archives: a rar with a rar per class, and a rar of lists."""
    inner = {}
    for label in ("clap", "run"):
        videos = {name: b"v" * 50_000 for name in NAMES if name.startswith(label)}
        inner[f"{label}.rar"] = as_rar(tmp_path / "inner.rar", videos).read_bytes()
    return {
        "hmdb51_org.rar": as_rar(tmp_path / "inner.rar", inner).read_bytes(),
        "test_train_splits.rar": as_rar(tmp_path / "inner.rar", lists()).read_bytes(),
    }


def fetch_command(server: Server, to: Path) -> list[str]:
    urls = [server.url.rpartition("/")[0] + f"/{name}" for name in ("hmdb51_org.rar", "test_train_splits.rar")]
    archives = [part for url in urls for part in ("--from", url)]
    return [sys.executable, "-m", "actionvit", "data", "fetch", "hmdb51", "--output", str(to), *archives]


def test_fetch_without_a_terminal(tmp_path, server, program):
    """Over the loopback, through the whole HMDB51 shape, in a process whose stderr is a pipe."""
    server.files = hmdb51_archives(tmp_path)
    to = tmp_path / "data" / "hmdb51"
    done = subprocess.run(fetch_command(server, to), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 videos of 2 classes" in done.stdout and "Traceback" not in done.stderr
    assert len(load_dataset(to).official) == 3 and not list(to.parent.glob(".*"))


def test_parallel_fetches_of_one_folder_all_succeed(tmp_path, server, program):
    server.files = hmdb51_archives(tmp_path)
    to = tmp_path / "data" / "hmdb51"
    command = fetch_command(server, to)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 4, outputs
    assert sum("there already" not in out for out, _ in outputs) == 1
    assert all("6 videos of 2 classes" in out for out, _ in outputs)
    assert [video.id for video in load_dataset(to).videos] == NAMES and not list(to.parent.glob(".*"))


def test_killed_fetch_is_resumed_and_leaves_nothing(tmp_path, server, program):
    server.files = hmdb51_archives(tmp_path)
    to = tmp_path / "data" / "hmdb51"
    for seconds in (0.3, 0.6, 0.9):
        process = subprocess.Popen(fetch_command(server, to), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        assert not to.exists() or len(load_dataset(to).videos) == 6
    assert subprocess.run(fetch_command(server, to), capture_output=True, check=False).returncode == 0
    assert [video.id for video in load_dataset(to).videos] == NAMES and not list(to.parent.glob(".*"))


def test_download_with_another_checksum_is_removed(tmp_path, server, monkeypatch):
    file = make_zip(tmp_path / "m.zip", {f"HMDB51/{name}": b"v" for name in NAMES})
    server.body = file.read_bytes()
    source = SOURCES["hmdb51"]
    digest = hashlib.sha256(server.body).hexdigest()
    for checksum, right in ((f"sha256:{digest[::-1]}", False), (f"sha256:{digest}", True)):
        changed = dataclasses.replace(source, urls=(server.url,), checksums=(checksum,))
        monkeypatch.setitem(SOURCES, "hmdb51", changed)
        if right:
            assert fetch("hmdb51", tmp_path / "data").videos == 6
        else:
            with pytest.raises(ActionVitError, match=f"sha256 {digest}, expected .*removed"):
                fetch("hmdb51", tmp_path / "data")
            assert not list(tmp_path.rglob("a set.zip"))


def test_ucf101_as_published(tmp_path, program):
    videos = {f"UCF-101/Clap/v_Clap_g{n:02}_c01.avi": b"v" for n in range(1, 5)}
    splits = {
        "ucfTrainTestlist/classInd.txt": b"1 Clap\r\n",
        "ucfTrainTestlist/trainlist01.txt": b"".join(b"Clap/v_Clap_g0%d_c01.avi 1\r\n" % n for n in (1, 2, 3)),
        "ucfTrainTestlist/testlist01.txt": b"Clap/v_Clap_g04_c01.avi\r\n",
    }
    archives = [as_rar(tmp_path / "UCF101.rar", videos), make_zip(tmp_path / "lists.zip", splits)]
    fetched = fetch("ucf101", tmp_path / "ucf101", sources=[str(file) for file in archives])
    assert (fetched.videos, fetched.classes) == (4, 1)
    dataset = load_dataset(tmp_path / "ucf101")
    assert dataset.format == "ucf101" and len(dataset.official[0].test) == 1


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_long_tar_headers_cost_no_memory(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 3 * 2**30
    with gzip.open(tmp_path / "bad.tar.gz", "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.write(bytes(2**20))
    code = (
        "import sys; from pathlib import Path\n"
        "from actionvit.pipeline.datasets.fetching.unpack import Budget, BadArchiveError, unpack\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]), Budget(10**12, 1000))\n"
        "except BadArchiveError as error: print(error)\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    command = [sys.executable, "-c", code, tmp_path / "bad.tar.gz", tmp_path / "out"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "is not a zip, tar" in out[0] or "a header of 3,221,225,472 bytes" in out[0]
    assert int(out[-1]) < 200_000


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_deeply_nested_folders_are_refused(tmp_path, kind):
    name = "/".join(["d"] * 600 + ["a.avi"])
    file = tmp_path / f"deep.{kind}"
    if kind == "zip":
        make_zip(file, {name: b"v"})
    else:
        make_tar(file, [member(name)])
    with pytest.raises(ActionVitError, match="a path of 601 folders, expected at most 32"):
        fetch("hmdb51", tmp_path / "data", sources=[str(file)])
    assert everything(tmp_path) == [file.name]
