"""Through a pipe, whatever the environment says of colours: lines, and nothing that moves a cursor."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.commandline.registry import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "bench-bqm": (),
    "bench-build": (),
    "bench-sweeps": (),
    "hardware": ("--methods", "anneal", "neal"),
    "solvers": ("--samplers", "auto,dwave-sa"),
    "sweep": ("hardware", "--methods", "anneal", "--grid", "settings.num_sweeps=10,20", "--seeds", "1"),
}

# The same ways to print, for longer or with torch; report and tables compute nothing, and their own tests print them.
LEFT_OUT = {"table1", "bench-qaoa", "bench-refine", "bench-samplers", "bench-train", "report", "tables"}


def test_every_experiment_is_run_or_left_out_on_purpose() -> None:
    assert SMALL.keys() | LEFT_OUT == EXPERIMENTS.keys() and not SMALL.keys() & LEFT_OUT


# Tests that run in the background ignore interrupts, and so would their children.
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "experiments", *sys.argv[1:]])
"""


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", HEARING, *map(str, arguments)]
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_log_has_lines_only_and_quiet_leaves_the_paths(name: str, tmp_path: Path) -> None:
    shown = {}
    for quiet in ((), ("--quiet",)):
        with start(name, *SMALL[name], "--smoke", "--out", tmp_path, *quiet) as process:
            out, error = process.communicate(timeout=240)
        assert process.returncode == 0 and not error
        assert not {b"\r", b"\x1b"} & {bytes([byte]) for byte in out}
        shown[quiet] = out.decode().splitlines()
    assert f"written to {', '.join(shown['--quiet',])}" in shown[()]
    assert shown["--quiet",] and all(Path(line).exists() for line in shown["--quiet",])


@pytest.mark.slow
def test_control_c_is_one_line_and_130(tmp_path: Path) -> None:
    with start("hardware", "--out", tmp_path) as process:
        while not (tmp_path / "hardware/config.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    assert process.returncode == 130 and error == b"interrupted\n"
    assert b"the same command resumes" in out


def test_a_reader_that_has_seen_enough_is_one_line() -> None:
    with start("list") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() in (b"", b"error: nothing reads the output any more\n")
        assert process.wait(timeout=60) in (0, 1)
