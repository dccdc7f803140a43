"""The observers of a run: always the metrics file, and those that the mission file lists, each in its own thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mission.errors import InputError, exception_text, printable
from mission.missionfile.hooks import Event, StopTraining
from mission.missionfile.models import MissionFile
from mission.missionfile.plugins import load_observer
from mission.observers.metrics import KINDS, METRICS, MetricsFile

log = logging.getLogger("mission")
Observer = Callable[[Event], None]
Functions = Observer | Iterable[Observer] | Mapping[str, Observer]  # with their own names, or by name
PATIENCE_S = 10.0  # of a whole run: training waits for one observer no longer than this in all
_WAITING = 64  # events that an observer may lag behind before training waits for it


class Observers:
    """Dispatcher of events to every chosen observer; one that fails, blocks or is too slow is reported and dropped."""

    def __init__(self, mission: MissionFile, log_dir: Path, functions: Functions | None = None) -> None:
        """Load the observers that the mission file lists; `functions` are further ones."""
        self.mission, self.log_dir = mission, log_dir
        self.observers = [
            _Observer(name, load_observer(name, mission.source.where(("observers", i))))
            for i, name in enumerate(mission.observers)
        ]
        self.observers += [_Observer(name, _with_keyword(function)) for name, function in _named(functions).items()]
        self.metrics: MetricsFile | None = None

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None:
            interrupted = issubclass(kind, KeyboardInterrupt)
            why = exception_text(error[0]) if isinstance(error[0], BaseException) else kind.__name__
            self.emit("mission_end", data={"status": "interrupted" if interrupted else "failed", "error": why})
        for observer in self.observers:
            observer.finish(wait=kind is not KeyboardInterrupt)

    @property
    def stopped_by(self) -> str | None:
        """The name of an observer that raised `StopTraining`; None if none has."""
        return next((observer.name for observer in self.observers if observer.stopped.is_set()), None)

    def emit(self, kind: str, phase: str = "", env_steps: int = 0, *, data: Any = None, **more: Any) -> None:
        """Write one event to the metrics file and pass it to every observer."""
        data = {"log_dir": str(self.log_dir), **(data or {})}
        event = Event(kind, self.mission.name, phase, env_steps, data=data, **more)
        if kind == "phase_start":
            self.metrics = MetricsFile(Path(event.data["folder"]) / METRICS)
        if self.metrics is not None and kind in KINDS:
            self.metrics.append(event)
        for observer in self.observers:
            observer.send(event)


def _named(functions: Functions | None) -> dict[str, Observer]:
    """Return functions by name: as they are given, or by their own names, which are numbered if several are the same.

    Raises:
      InputError: one is not a function.
    """
    given: Any = functions or ()
    given = (
        given.items() if isinstance(given, Mapping) else [("", one) for one in ([given] if callable(given) else given)]
    )
    named: dict[str, Observer] = {}
    for name, function in given:
        if not callable(function):
            raise InputError(
                "observers",
                expected="functions of an event, as a list, or as a dict by name",
                found=repr(function),
                remedy="an installed observer belongs into the mission, by its name: observers: [NAME]",
            )
        own = name or getattr(function, "__name__", type(function).__name__)
        number = sum(known.partition(" ")[0] == own for known in named) + 1
        named[own if number == 1 else f"{own} {number}"] = function
    return named


def _with_keyword(function: Callable[[Event], None]) -> Callable[..., None]:
    """Return a function that is called as a hook is, by keyword."""
    return lambda event: function(event)


class _Observer:
    """One observer: a queue of events, and a thread that passes them to its hook in order.

    The thread is a daemon, so a hook that never returns does not keep the process.
    """

    def __init__(self, name: str, hook: Callable[..., Any]) -> None:
        self.name, self.hook = name, hook
        self.events: queue.Queue[Event | None] = queue.Queue(_WAITING)
        self.patience_s = PATIENCE_S
        self.dropped, self.stopped = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._work, name=f'observer "{name}"', daemon=True)

    def send(self, event: Event | None) -> None:
        """Append an event to the queue; if the queue stays full, drop the observer."""
        if self.dropped.is_set():
            return
        if self.thread.ident is None:
            self.thread.start()
        with contextlib.suppress(queue.Full):
            self.events.put_nowait(event)
            return
        began = time.monotonic()
        try:
            self.events.put(event, timeout=self.patience_s)
        except queue.Full:
            self._drop(f"blocked training for {PATIENCE_S:.0f} s")
        self.patience_s = max(0.0, self.patience_s - (time.monotonic() - began))

    def finish(self, wait: bool) -> None:
        """Let the observer handle the events in its queue, for a limited time."""
        if self.thread.ident is None:
            return
        self.send(None)
        self.thread.join(PATIENCE_S if wait else 0.0)
        if wait and self.thread.is_alive():
            self._drop(f"did not finish its last events within {PATIENCE_S:.0f} s")

    def _work(self) -> None:
        while not self.dropped.is_set():
            event = self.events.get()
            if event is None:
                return
            try:
                self.hook(event=event)
            except StopTraining as stop:
                if not self.stopped.is_set():
                    log.warning(
                        'observer "%s" ends the training run: %s', self.name, printable(stop) or "no reason given"
                    )
                self.stopped.set()
            except BaseException as error:  # SystemExit too: an observer does not end the run
                self._drop(f"raised {exception_text(error)}")

    def _drop(self, reason: str) -> None:
        if not self.dropped.is_set():
            self.dropped.set()
            log.warning('observer "%s" is dropped, and training continues: it %s', self.name, reason)
