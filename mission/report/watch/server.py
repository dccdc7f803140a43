"""The server of `mission watch`: GET of a few fixed paths, from this machine only, and nothing that changes anything."""

from __future__ import annotations

import http.server
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mission.errors import MachineError, exception_text
from mission.report.folder import PAGE
from mission.report.page import stylesheet
from mission.report.watch.page import watch_page
from mission.report.watch.state import mission_folder, run_state, training_html
from mission.strict import StrictModel

log = logging.getLogger("mission")
HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost")  # hosts that a request may name: another one is a DNS name that leads here
_REST = 5.0  # seconds of rest per second of flying, so that training keeps the machine
_LEAST_S = 20.0
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; frame-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)
_FOLDER = Path(__file__).parent


class FlightState(StrictModel):
    """The newest flights of the page: `number` counts the reports, 0 before the first; `note` says what is going on."""

    number: int
    note: str


class LatestFlight:
    """Flies the newest policies again and again, in a process of its own, whenever they have changed."""

    def __init__(self, root: Path, flights: int, mission: Path | None, allow_local_plugins: bool) -> None:
        """Prepare for the run in `root`; with 0 flights, none are flown."""
        self.root, self.flights, self.mission, self.local = root, flights, mission, allow_local_plugins
        self.folder = tempfile.TemporaryDirectory(prefix="mission-watch-")
        self.state = FlightState(number=0, note="" if flights else "no flights are flown (--flights 0)")
        self.page: bytes | None = None
        self.process: subprocess.Popen[str] | None = None
        self.closing = threading.Event()

    def run(self) -> None:
        """Fly until `close`; for a thread."""
        flown = ""
        while not self.closing.wait(1.0 if flown else 0.0):
            marks = self._marks()
            if not marks or marks == flown:
                continue
            began, flown = time.monotonic(), marks
            self._fly()
            self.closing.wait(max(_LEAST_S, _REST * (time.monotonic() - began)))

    def close(self) -> None:
        """End the process that flies, and remove its report."""
        self.closing.set()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()

    def _marks(self) -> str:
        """Return a text that changes with the policies of the run."""
        steps = self.root.glob("*/training/*[0-9]")
        return "|".join(sorted(f"{one}" for one in (*steps, *self.root.glob("*/done")) if ".tmp" not in one.name))

    def _fly(self) -> None:
        number = self.state.number + 1
        out = Path(self.folder.name) / str(number)
        command = [sys.executable, "-m", "mission.report.watch.flight", str(self.root), str(out), str(self.flights)]
        command += [str(self.mission or ""), "yes" if self.local else ""]
        self.state = self.state.model_copy(update={"note": f"flying {self.flights:,} flights of the newest policies"})
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _, errors = self.process.communicate()
        if self.closing.is_set():
            return
        page = out / PAGE
        if self.process.returncode == 0 and page.is_file():
            self.page = page.read_bytes()
            self.state = FlightState(number=number, note=f"flown at {time.strftime('%H:%M:%S')}")
        else:
            last = (errors.strip().splitlines() or ["no reason given"])[-1]
            self.state = self.state.model_copy(update={"note": f"not flown: {last[:300]}"})


class Answer(NamedTuple):
    """What one path gives."""

    body: bytes
    kind: str
    policy: str = _POLICY


class WatchServer(http.server.ThreadingHTTPServer):
    """A server for the run in one folder; it listens on the loopback address only."""

    daemon_threads = True

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        flights: int = 200,
        mission: Path | None = None,
        allow_local_plugins: bool = False,
    ) -> None:
        """Bind the port; `serve_forever` answers.

        Args:
          folder: `checkpoints/<mission>`, or the folder that holds only it.
          port: 0 takes a free one.
          flights: of the newest policies, flown again when they change; 0: none.
          mission: mission file, where the records do not suffice (local plugins).
          allow_local_plugins: permit `plugin: ./file.py` of that file.

        Raises:
          InputError: the folder holds no training run.
          MachineError: the port cannot be used.
        """
        self.root = mission_folder(folder)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise MachineError(
                f"--port {port}",
                expected="a free port of this machine",
                found=error.strerror or exception_text(error),
                remedy="choose another one; 0 takes any that is free",
            ) from None
        self.latest = LatestFlight(self.root, flights, mission, allow_local_plugins)
        if flights:
            threading.Thread(target=self.latest.run, name="flights", daemon=True).start()
        self.routes: dict[str, Callable[[], Answer]] = {
            "/": lambda: Answer(watch_page(self.root.resolve().name).encode(), "text/html"),
            "/state": lambda: Answer(self._state().encode(), "application/json"),
            "/training": lambda: Answer(training_html(self.root).encode(), "text/html"),
            "/page.css": lambda: Answer(stylesheet().encode(), "text/css"),
            "/watch.css": lambda: Answer((_FOLDER / "watch.css").read_bytes(), "text/css"),
            "/watch.js": lambda: Answer((_FOLDER / "watch.js").read_bytes(), "text/javascript"),
            "/flight": lambda: Answer(self.latest.page or b"", "text/html", _REPORT_POLICY),
        }

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def close(self) -> None:
        """Stop flying and close the port; a thread of `serve_forever` is to be stopped by `shutdown` first."""
        self.latest.close()
        self.server_close()

    def _state(self) -> str:
        flight = self.latest.state.model_dump_json()
        return f'{{"run":{run_state(self.root).model_dump_json()},"flight":{flight}}}'


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WatchServer  # ty: ignore[incompatible-mutable-override]
    server_version, sys_version = "mission", ""
    timeout = 20  # of a connection that says nothing

    def do_GET(self) -> None:
        """Answer one of the fixed paths."""
        port = self.server.server_address[1]
        if self.headers.get("Host", "") not in {f"{name}:{port}" for name in _NAMES}:
            self._send(403, b"this server is for this machine only\n", "text/plain")
            return
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            self._send(404, b"no such page\n", "text/plain")
            return
        try:
            answer = route()
        except Exception as error:  # the run may be writing or removing what is read
            log.debug("%s: %s", self.path, exception_text(error))
            self._send(503, b"not readable at the moment; try again\n", "text/plain")
            return
        if answer.body:
            self._send(200, answer.body, answer.kind, answer.policy)
        else:
            self._send(404, b"nothing is flown yet\n", "text/plain")

    def __getattr__(self, name: str) -> Any:
        """Refuse every other method."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True
        self._send(405, b"only GET\n", "text/plain")

    def _send(self, code: int, body: bytes, kind: str, policy: str = _POLICY) -> None:
        self.send_response(code)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        } | ({"Allow": "GET"} if code == 405 else {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write requests to the debug log only."""
        log.debug(format, *args)
