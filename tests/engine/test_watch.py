"""`mission watch`: what its server answers and refuses, and its page in a browser while a run grows."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from axe import checked
from browser import CHROMIUM, chromium
from factory import ROOT, run_cli

from mission.errors import InputError, MachineError
from mission.missionfile.hooks import Event
from mission.observers.metrics import MetricsFile
from mission.report.watch.flight import newest_chain
from mission.report.watch.server import WatchServer
from mission.report.watch.state import is_running, mission_folder, run_state, training_html

SHIPPED = ROOT / "checkpoints" / "shipped" / "vertical"
SECRET = "no business of a browser"


@contextlib.contextmanager
def serving(folder: Path, **options):
    server = WatchServer(folder, 0, **{"flights": 0} | options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.close()


@pytest.fixture
def run(tmp_path):
    """A copy of a finished run."""
    folder = tmp_path / "checkpoints" / "vertical"
    shutil.copytree(SHIPPED, folder)
    for phase in ("coast", "burn"):
        (folder / phase / "done").write_text("")
    (tmp_path / "secret.txt").write_text(SECRET)
    return folder


def ask(server, path="/state", method="GET", **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": f"127.0.0.1:{port}"} | headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_it_listens_on_the_loopback_address_only(run):
    with serving(run) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.socket.getsockname()[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.mark.parametrize("path", ["/", "/state", "/training", "/page.css", "/watch.js", "/watch.css"])
def test_every_answer_forbids_what_it_does_not_need(run, path):
    with serving(run) as server:
        answer, body = ask(server, path)
        assert answer.status == 200
        assert body
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_only_get_is_answered(run, method):
    with serving(run) as server:
        answer, _ = ask(server, "/state", method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1", "0.0.0.0"])
def test_another_host_is_refused(run, host):
    """A page of the internet whose name was made to lead here (DNS rebinding) sends its own name."""
    with serving(run) as server:
        port = server.server_address[1]
        for name in (host, f"{host}:{port}" if host not in ("", "127.0.0.1") else f"{host}:{port + 1}"):
            answer, body = ask(server, Host=name)
            assert answer.status == 403
            assert b"coast" not in body
        assert ask(server, Host=f"localhost:{port}")[0].status == 200


@pytest.mark.parametrize("path", [
    "/../secret.txt", "/../../secret.txt", "/..%2f..%2fsecret.txt", "//etc/passwd", "/etc/passwd", "/coast/metrics.jsonl",
    "/%2e%2e/%2e%2e/secret.txt", "/state/../../secret.txt", "/\\..\\secret.txt", "http://127.0.0.1/etc/passwd", "*", "/flight",
])  # fmt: skip
def test_no_other_path_is_answered(run, path):
    with serving(run) as server:
        answer, body = ask(server, path)
        assert answer.status == 404
        assert SECRET.encode() not in body


def test_nonsense_does_not_end_the_server(run):
    with serving(run) as server:
        for text in (
            b"\0\0\0\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /state HTTP/1.1\r\n",
            b"A" * 100_000,
        ):
            with contextlib.suppress(OSError), socket.create_connection(server.server_address, timeout=5) as stream:
                stream.sendall(text)
        assert ask(server)[0].status == 200


def test_a_used_port_is_an_error(run):
    with serving(run) as server, pytest.raises(MachineError, match="free port"):
        WatchServer(run, server.server_address[1], flights=0)


def test_the_folder_may_be_the_one_above(run, tmp_path):
    assert mission_folder(run.parent) == run == mission_folder(run)
    shutil.copytree(run, run.parent / "other")
    with pytest.raises(InputError, match="several missions: other, vertical"):
        mission_folder(run.parent)
    with pytest.raises(InputError, match="no such folder"):
        mission_folder(tmp_path / "none")
    (tmp_path / "mission.yaml").touch()
    with pytest.raises(InputError, match="found: a file"):
        mission_folder(tmp_path / "mission.yaml")
    with pytest.raises(InputError, match="no phase with metrics"):
        mission_folder(tmp_path)


def test_a_run_is_running_while_its_process_holds_the_lock(run):
    lock = run / ".lock"
    assert not is_running(run)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(str(os.getpid()))
        stream.flush()
        assert is_running(run)
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is still held: looking does not take it away
    assert not is_running(run), "the process lives, but it has let the lock go"
    lock.write_text("999999999")
    assert not is_running(run)
    lock.write_text("nonsense")
    assert not is_running(run)


def test_nothing_in_the_folder_changes(run):
    def content():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}

    before = content()
    with serving(run) as server:
        for path in ("/", "/state", "/training"):
            ask(server, path)
    assert content() == before


def test_the_state_follows_the_files(run):
    first = run_state(run)
    assert [(one.name, one.state) for one in first.phases] == [("coast", "done"), ("burn", "done")]
    assert first.version == run_state(run).version
    (run / "burn" / "done").unlink()
    append(run / "burn" / "metrics.jsonl", 999_999, 0.25)
    then = run_state(run)
    assert then.version != first.version
    assert (then.phases[1].state, then.phases[1].env_steps, then.phases[1].success) == ("begun", 999_999, 0.25)
    assert "Evaluation" in training_html(run)


def append(path: Path, env_steps: int, success: float) -> None:
    scalars = {"Evaluation/Success": success, "Evaluation/Return": 1.0, "Evaluation/Best": success}
    MetricsFile(path).append(Event("evaluation", "vertical", path.parent.name, env_steps, scalars))


def test_the_newest_policies_are_flown(run):
    """As far as there are policies without a gap: the first phase alone while the second one has none."""
    assert [phase.name for phase in newest_chain(run).phases] == ["coast", "burn"]
    shutil.rmtree(run / "burn" / "policy")
    assert [phase.name for phase in newest_chain(run).phases] == ["coast"]
    shutil.rmtree(run / "coast" / "policy")
    with pytest.raises(InputError, match="none yet"):
        newest_chain(run)


def test_ctrl_c_ends_the_command(run):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins" / "rocket")])}
    command = [sys.executable, "-m", "mission", "watch", str(run), "--port", "0", "--flights", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("page: http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_wrong_folder_is_an_error_in_four_parts(tmp_path):
    done = run_cli("watch", tmp_path / "none", cwd=tmp_path)
    assert done.returncode == 2
    assert "to do: begin with `mission train FILE`" in done.stderr


# In a browser


@pytest.fixture(scope="module")
def tab():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with chromium() as page:
        yield page


def visit(page, server, width=1280, dark=False):
    page.complaints.clear()
    page.look(width, dark=dark)
    page.call("Page.navigate", url=server.url)
    wait(page, "document.querySelectorAll('#training .chart').length > 0")


def wait(page, code, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not page.run(code):
        assert time.monotonic() < deadline, code
        time.sleep(0.05)


def others(page, server):
    return [text for text in page.complaints if not text.startswith(f"request to {server.url}")]


def test_the_page_follows_a_run(tab, run):
    (run / "burn" / "done").unlink()
    with serving(run) as server:
        visit(tab, server)
        assert "can be resumed" in tab.run("document.getElementById('status').textContent")
        cells = "[...document.querySelectorAll('#rows tr')].map(row => row.textContent)"
        assert "begun" in tab.run(cells)[1]
        with (run / ".lock").open("w") as lock:
            lock.write(str(os.getpid()))
            lock.flush()
            append(run / "burn" / "metrics.jsonl", 777_777, 0.625)
            wait(tab, f"{cells}[1].includes('777,777') && {cells}[1].includes('62.5 %')")
            wait(tab, "document.body.classList.contains('running')")
            assert tab.run("document.getElementById('status').textContent") == "Training burn."
        assert others(tab, server) == []
    wait(tab, "document.body.classList.contains('lost')")


def test_the_latest_flight_is_in_the_page(tab, run):
    with serving(run, flights=20) as server:
        visit(tab, server)
        deadline = time.monotonic() + 300
        while server.latest.state.number == 0:
            assert time.monotonic() < deadline, server.latest.state.note
            time.sleep(0.2)
        wait(tab, "!document.getElementById('report').hidden")
        answer, body = ask(server, "/flight")
        assert "sandbox allow-scripts" in answer.headers["Content-Security-Policy"]
        for part in (b'id="replay"', b"Hand-overs", b"20 flights"):
            assert part in body
        assert "flown at" in tab.run("document.getElementById('note').textContent")
        assert others(tab, server) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_is_accessible(tab, run, width, dark):
    with serving(run) as server:
        visit(tab, server, width, dark)
        assert tab.run("document.documentElement.scrollWidth") == width
        assert checked(tab) == ([], 100.0)


def test_names_of_phases_are_text(tab, run):
    name = "<img src=x onerror='window.evil = 1'>"
    (run / "burn").rename(run / name)
    with serving(run) as server:
        visit(tab, server)
        wait(tab, "document.querySelectorAll('#rows tr').length === 2")
        assert tab.run("window.evil") is None
        assert tab.run("document.querySelectorAll('main img').length") == 0
        assert json.dumps(name)[1:-1] in tab.run("document.querySelector('#rows').textContent")
