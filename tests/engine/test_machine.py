"""What the machine lacks or its environment asks for is named, and an exit code says who can help."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from factory import CART, run_cli, write_mission

from mission import cli, load_mission, train_mission
from mission.errors import Interrupted, MachineError, StaleError
from mission.machine import devices
from mission.storage.lock import folder_lock


@pytest.fixture
def fresh_warnings():
    """Warnings that are given once per process are given again."""
    for function in (devices._cache_folder, devices._warn_of_devices, devices._try_flags):
        function.cache_clear()
    yield
    devices._cache_folder.cache_clear()
    devices.configure()


# The environment


def test_check_names_the_variable_that_asks_for_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    done = run_cli("check", write_mission(tmp_path), "--allow-local-plugins")
    assert done.returncode == 3
    assert "JAX_PLATFORMS=cuda" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_flag_of_xla_is_named(monkeypatch, fresh_warnings):
    monkeypatch.setenv("XLA_FLAGS", "--xla_bogus=1")
    with pytest.raises(MachineError, match=r"XLA_FLAGS=--xla_bogus=1\n.*\n.*Unknown flag"):
        devices.configure()
    monkeypatch.undo()


def test_modes_in_which_no_phase_runs_are_named():
    with jax.enable_x64(True), pytest.raises(MachineError, match="jax_enable_x64 is on"):
        devices.configure()
    with jax.disable_jit(), pytest.raises(MachineError, match="jax_disable_jit is on"):
        devices.configure()
    devices.configure()


def test_jax_that_already_runs_with_one_device_is_a_warning(monkeypatch, caplog, fresh_warnings):
    monkeypatch.setattr(devices, "visible_cores", lambda: 2)
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: one)
    for _ in range(2):
        devices.configure()
    (message,) = [record.message for record in caplog.records]
    assert "1 device instead of 2" in message
    assert "restart the kernel or process" in message
    assert "mission.configure()" in message


def test_a_notebook_that_began_with_jax_is_told_how_to_get_the_cores(tmp_path):
    """In a process of its own: JAX computes first, or mission.configure() comes first."""
    script = (
        "import os, sys, logging\nlogging.basicConfig(format='%(message)s')\nimport mission\n"
        "from mission.machine import devices\ndevices.visible_cores = lambda: 2\n"
        "if sys.argv[1] == 'late':\n    import jax.numpy as jnp\n    jnp.zeros(3) + 1\n"
        "mission.configure()\nmission.configure()\nimport jax\nprint(len(jax.devices()))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    for when, count, warnings in (("late", "1", 1), ("early", "2", 0)):
        command = [sys.executable, "-c", script, when]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
        assert done.stdout.split()[-1] == count
        assert done.stderr.count("1 device instead of 2") == warnings, done.stderr
        assert done.stderr.count("mission.configure()") == warnings


def test_a_user_without_a_name_or_a_home_trains_without_a_cache(monkeypatch, caplog, fresh_warnings):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for _ in range(2):
        devices.configure()
    assert jax.config.jax_compilation_cache_dir is None
    (message,) = [record.message for record in caplog.records]
    assert "Could not determine home directory" in message


def test_a_file_system_without_locks_is_not_another_run(monkeypatch, tmp_path):
    def no_locks(stream, operation) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(MachineError, match="No locks available") as caught, folder_lock(tmp_path / "ck"):
        pass
    assert "another file system" in str(caught.value)
    assert "wait" not in str(caught.value)


# Memory


def test_a_replay_buffer_beyond_the_memory_is_refused_before_the_fill(tmp_path):
    mission = load_mission(write_mission(tmp_path), ["phases.second.sac.buffer_size=2147483647"])
    with pytest.raises(MachineError, match=r"buffer_size: 2147483647, which takes [0-9.]+ GB") as caught:
        train_mission(mission, checkpoints=tmp_path / "ck", allow_local_plugins=True)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "ck" / "trial" / "first").exists()


# Exit codes


@pytest.fixture
def fail(monkeypatch, capsys):
    """A function that runs `mission check` in this process while it raises an error; returns code and standard error."""

    def run(error: BaseException, *more: str) -> tuple[int, str]:
        def load(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("mission.missionfile.reading.load_mission", load)
        monkeypatch.setattr(sys, "argv", ["mission", *more, "check", "m.yaml"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(str(ended.value.code)), capsys.readouterr().err

    monkeypatch.setattr("mission.missionfile.failures.list_plugins", lambda group: ())  # their metadata takes a second
    level = logging.getLogger("jax").level
    yield run
    for name in ("absl", "orbax", "jax"):
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (MemoryError(), 3, "enough memory"),
        (RuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 64 bytes."), 3, "buffer_size"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "free disk space"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 3, ""),
        (EOFError(), 3, ""),
        (TypeError("one\ntwo"), 3, "TypeError: two"),
        (SystemExit(0), 3, "SystemExit"),
        (SystemExit(1), 3, "SystemExit"),
        (StaleError("here", expected="a", found="b", remedy="c"), 2, "here"),
        (KeyboardInterrupt(), 130, "stopped"),
        (Interrupted("here", expected="a", found="a signal", remedy="c"), 130, "error: here"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_code_1_means_only_a_negative_result(fail, error, code, part):
    found, text = fail(error)
    assert found == code
    assert part in text
    assert "Traceback" not in text
    if not isinstance(error, KeyboardInterrupt | BrokenPipeError | EOFError):
        found, text = fail(error, "--debug")
        assert found == code
        assert "Traceback" in text


def test_a_plugin_that_fails_while_it_flies_is_exit_2(tmp_path):
    """A callback runs only when flights do, long after the contract was checked."""
    i, j = CART.index("    def telemetry"), CART.index("    def guide")
    broken = (
        "    def telemetry(self, state):\n"
        "        callback, shape = lambda x: sys.exit(0), jax.ShapeDtypeStruct((), jnp.float32)\n"
        "        value = jax.pure_callback(callback, shape, state.time_s, vmap_method='expand_dims')\n"
        "        return {'position_m': value, 'velocity_m_s': value}\n"
    )
    path = write_mission(tmp_path, plugin="import sys\n" + CART[:i] + broken + CART[j:])
    done = run_cli("fly", path, "--allow-local-plugins", "--policy", "guide", "--flights", 2)
    assert done.returncode == 2, done.stderr
    assert "the plugin's code to work" in done.stderr
    assert "SystemExit: 0 (in a callback)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_phase_that_was_last_and_has_no_bank_is_exit_2(tmp_path):
    """Nothing was trained in the run that says so."""
    path = write_mission(tmp_path)
    whole = path.read_text()
    narrow = ["phases.first.policy=guide", "phases.first.params={tolerance_m: 1.0e-9}"]
    path.write_text(whole[: whole.index("  - name: second")])
    options = {"checkpoints": tmp_path / "ck", "allow_local_plugins": True}
    train_mission(load_mission(path, narrow), **options)
    path.write_text(whole)
    with pytest.raises(StaleError, match='a bank for "second" to start from'):
        train_mission(load_mission(path, narrow), **options)
