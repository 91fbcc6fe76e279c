"""Progress of long commands, with and without a terminal, and the state after an interruption."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import time

import pytest

from actionvit.commands import progress as module
from actionvit.commands.progress import progress, stages


def on_terminal(code: str, columns: int = 80) -> str:
    """Return what Python code writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(leader, (24, columns))
    with subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower) as process:
        os.close(follower)
        written = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # the terminal's other end is closed
                break
            if not chunk:
                break
            written += chunk
        assert process.wait(60) == 0, written
    os.close(leader)
    return written.decode()


def test_without_a_terminal_a_line_comes_before_the_first_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.2)
    with progress("probe", "head", total=4) as advance:
        time.sleep(0.5)
        before = capsys.readouterr().err
        advance(2, 4, "loss 1.20")
        time.sleep(0.5)
    assert re.match(r"probe: 0 of 4 heads after 0\.\d s\n", before)
    assert re.search(
        r"probe: 2 of 4 heads after [01]\.\d s, about [01]\.\d s left \(loss 1\.20\)\n", capsys.readouterr().err
    )


def test_time_left_follows_the_latest_units(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[-1])
    lines = module._Lines("heads", "head", 78)
    for seconds, done in ((30.0, 54), (60.0, 57), (90.0, 57), (120.0, 60)):  # 54 were read from runs that exist
        clock.append(seconds)
        lines.advance(done, 78)
        lines.write()
    text = capsys.readouterr().err.splitlines()
    assert text[1] == "heads: 57 of 78 heads after 60 s, about 4 min left"
    assert text[2] == "heads: 57 of 78 heads after 90 s"
    assert text[3] == "heads: 60 of 78 heads after 2 min, about 6 min left"


def test_short_steps_write_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with stages() as advance:
        advance("figures", 1, 2)
        advance("writing", 1, 1)
    assert capsys.readouterr().err == ""


def test_a_bar_shows_before_the_first_unit() -> None:
    code = "import time\nfrom actionvit.commands.progress import progress\n"
    code += "with progress('probe', 'head', delay=0.2, total=3): time.sleep(1)"
    written = on_terminal(code)
    assert "probe:   0%" in written, written


def test_a_training_step_fits_80_columns() -> None:
    code = (
        "from actionvit.commands.progress import stages\n"
        "with stages('step', delay=0) as advance:\n"
        "    advance('frozen blocks', 8, 9)\n"
        "    for done in range(1, 400):\n"
        "        advance('official-1', done, 400, 'epoch 12/20, loss 2.31, 45 %, 12 clips/s')\n"
        "        if done % 100 == 0:\n"
        "            from actionvit.commands.command import write_line\n"
        "            import time; time.sleep(0.15); write_line('official-1 epoch: loss 2', err=False)\n"
    )
    written = on_terminal(code)
    shown = re.findall(r"official-1: +\d+%\|.{6}\| [\d:]+<[\d:?]+, epoch 12/20, loss 2\.31, 45 %, 12 clips/s", written)
    assert shown, written
    assert max(map(len, shown)) <= 80
    assert "\x1b[A" not in written, "no bar stands above another"
    assert "frozen blocks" not in written[written.index("official-1:") :]


def test_ctrl_c_does_not_wait_for_threads_that_compute() -> None:
    code = (
        "import threading, time, click\n"
        "from actionvit.cli import LazyGroup, main\n"
        "def interrupted():\n"
        "    threading.Thread(target=time.sleep, args=(300,)).start()\n"
        "    raise KeyboardInterrupt\n"
        "LazyGroup.get_command = lambda *_: click.Command('probe', callback=interrupted)\n"
        "main(['probe'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "Aborted!")
