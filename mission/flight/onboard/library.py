"""The compiled library of an exported policy, called through cffi, which the extra `c` installs.

Shapes: M observations, n O entries of an observation with its history, A action, I channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import MachineError, exception_text
from mission.flight.onboard.compiler import LIBRARY
from mission.flight.onboard.interface import INTERFACE
from mission.machine.extras import import_extra


class Library:
    """A loaded `libpolicy.so`; its functions may be called from several threads."""

    def __init__(self, path: Path, declarations: str, actions: int, observations: int) -> None:
        """Load a library.

        Args:
          path: folder of the export.
          declarations: its functions, as cffi reads them.
          actions, observations: A and O.

        Raises:
          MachineError: cffi is not installed, or the library cannot be loaded here.
        """
        self.ffi: Any = import_extra("cffi", "mission-engine[c]", str(path)).FFI()
        try:
            self.ffi.cdef(declarations)
        except Exception as error:  # of cffi or of the parser below it, for another file's text
            raise MachineError(
                str(path / INTERFACE),
                expected="declarations of C functions",
                found=exception_text(error),
                remedy="export the policy again",
            ) from None
        self.actions, self.observations = actions, observations
        try:
            self.functions: Any = self.ffi.dlopen(str((path / LIBRARY).resolve()))
        except OSError as error:
            raise MachineError(
                str(path / LIBRARY),
                expected="a library of this kind of machine",
                found=str(error),
                remedy="export the policy again on this machine",
            ) from None

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions, float32 [M, A], for observations [M, n O]."""
        return self._each(self.functions.policy_action, observations, self.actions)

    def observe(self, channels: np.ndarray) -> np.ndarray:
        """Return the observations, float32 [M, O], for telemetry channels [M, I]."""
        return self._each(self.functions.policy_observe, channels, self.observations)

    def follow(self, observations: np.ndarray) -> np.ndarray:
        """Return the actions, float32 [M, A], for the observations [M, O] of one flight, whose history the library keeps."""
        memory = self.ffi.new("policy_memory *")
        self.functions.policy_reset(memory)
        return self._each(
            lambda row, action: self.functions.policy_step(memory, row, action), observations, self.actions
        )

    def _each(self, function: Any, rows: np.ndarray, width: int) -> np.ndarray:
        rows = np.ascontiguousarray(rows, np.float32)
        results = np.empty((len(rows), width), np.float32)
        first = self.ffi.from_buffer("float[]", rows)
        to = self.ffi.from_buffer("float[]", results, require_writable=True)
        for at in range(len(rows)):
            function(first + at * rows.shape[1], to + at * width)
        return results
