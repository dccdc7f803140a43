"""Signals end a run in order or at once, never with a traceback; no thread keeps a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factory import CART, write_mission

from mission.training.signals import interruptible

COMMAND = (sys.executable, "-m", "mission")


def run_code(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False)


def test_the_second_signal_ends_an_endless_flight_at_once(tmp_path):
    """The bank of a guided phase never ends: SIGHUP would stop training after it; SIGINT then ends the process."""
    endless = CART.replace("max_steps = 50", "max_steps = 10**9").replace("state.time_s >=", "state.time_s < -")
    write_mission(tmp_path, plugin=endless)
    arguments = (
        "train",
        str(tmp_path / "mission.yaml"),
        "--allow-local-plugins",
        "--checkpoints",
        str(tmp_path / "ck"),
    )
    more = ("--set", "phases.first.policy=guide", "--set", "observers=[progress]")
    process = subprocess.Popen([*COMMAND, *arguments, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("first: starts")
        time.sleep(2.0)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=3)
    finally:  # a flight that never ends outlives a test that failed
        process.kill()
        _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert stderr.startswith("stopping at the end of this chunk")
    assert stderr.endswith("stopped; what was saved before is kept\n")
    assert "Traceback" not in stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.4])
def test_ctrl_c_while_the_libraries_load_prints_no_traceback(tmp_path, delay_s):
    write_mission(tmp_path)
    arguments = ("check", str(tmp_path / "mission.yaml"), "--allow-local-plugins")
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not _catches(process.pid, signal.SIGTERM):
            time.sleep(0.001)
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, "stopped; what was saved before is kept\n")


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    (line,) = [text for text in Path(f"/proc/{pid}/status").read_text().splitlines() if text.startswith("SigCgt")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_ctrl_c_at_the_very_end_prints_no_traceback():
    """After the last line, while Python runs what was registered for the exit."""
    done = run_code(
        "import atexit, os, signal, time\n"
        "from mission.training.signals import finish_process, watch_signals\n"
        "watch_signals()\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30)))\n"
        "finish_process(0)"
    )
    assert (done.returncode, done.stderr) == (130, "stopped; what was saved before is kept\n")


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize(
    "stuck",
    ["threading.Thread(target=time.sleep, args=(99,)).start()", "futures.ThreadPoolExecutor(1).submit(time.sleep, 99)"],
)
def test_no_thread_keeps_the_process(stuck, code):
    began = time.monotonic()
    done = run_code(
        "import threading, time\n"
        "from concurrent import futures\n"
        "from mission.training import signals\n"
        f"signals._ENDING_S = 0.2\n{stuck}\nprint('last line')\nsignals.finish_process({code})"
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "last line\n", "")
    assert time.monotonic() - began < 30.0


def test_a_script_whose_save_failed_ends(tmp_path):
    """Orbax's threads would wait for the folder that could not be made, and Python for them."""
    done = run_code(
        "from pathlib import Path\n"
        "import jax.numpy as jnp\n"
        "from mission.storage.steps import write_step\n"
        f"write_step(Path({str(tmp_path)!r}) / '5', {{'x' * 240: jnp.arange(3.0)}}, None)"
    )
    assert done.returncode == 1
    assert "MachineError" in done.stderr
    assert "File name too long" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_thread_of_a_plugin_that_fails_is_one_line():
    done = run_code(
        "import logging, threading\n"
        "from mission.training.signals import quiet_threads\n"
        "logging.basicConfig(format='%(message)s')\nquiet_threads()\n"
        "threading.Thread(target=lambda: 1 / 0, name='upload').start()"
    )
    assert done.stderr == "the thread upload failed: ZeroDivisionError: division by zero\n"


def test_text_that_cannot_be_written_is_exit_3():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_outside_the_command_line_the_second_signal_raises(number):
    with interruptible() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGTERM)
            assert stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
