"""Fly a phase with an ONNX model, or with the compiled library of an exported policy, in place of the networks of its learner.

It is called on the host for a block of flights at a time. Shapes: N flights of a block, n O entries of an
observation with its history, A action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError, MachineError, StaleError, exception_text
from mission.flight.onboard.compiler import LIBRARY
from mission.flight.onboard.interface import GOLDEN, Interface, is_export, read_interface
from mission.flight.onboard.library import Library
from mission.flight.onboard.onnx_policy import onnx_policy
from mission.missionfile.phases import LibraryPhase, PolicyPhase
from mission.missionfile.pilots import onnx_file
from mission.storage.stored import json_mapping

_MOST_APART = 1e-6


def exported_phase(folder: Path) -> str:
    """Return the name of the phase whose policy a folder holds, for `--policy-from`.

    Raises:
      InputError: it holds no exported policy.
    """
    return read_interface(folder, f"--policy-from {folder}").phase


def with_library(phase: PolicyPhase, folder: Path, where: str, allowed: bool) -> PolicyPhase:
    """Return a phase that an ONNX model flies, or the library of an exported policy in a folder; else the phase itself.

    Args:
      phase: that the policy in this folder flies.
      folder: of the policy, or the file of the model.
      where: the place that names it, for messages.
      allowed: whether code beside the mission may run, or the caller named the folder.

    Raises:
      InputError: that is not allowed, the export has no library, or see `onnx_policy`.
      StaleError: it was made for other observations or actions, or another rate.
      MachineError: a package is not installed, a file was altered, or the library does not reproduce its golden vectors.
    """
    if onnx_file(phase.pilot) is not None:
        policy = onnx_policy(folder, phase, where)
        return _flown(phase, policy.act, policy.sha256)
    if not is_export(folder):
        return phase
    if not allowed:
        raise InputError(
            where,
            expected="--allow-local-plugins, because the library of an exported policy is code that runs",
            found=str(folder),
            remedy="pass it if you trust the folder, or name the folder with --policy-from",
        )
    interface = read_interface(folder, where)
    _check_fits(phase, interface, folder, where)
    library = Library(folder, interface.declarations, len(interface.actions), 0)
    _check_golden(library, folder, len(phase.environment.observation_names))
    return _flown(phase, library.act, interface.files[LIBRARY])


def _flown(phase: PolicyPhase, act: Callable[[Any], Any], digest: str) -> LibraryPhase:
    """Return a phase that a function on the host flies; the SHA-256 of it stands for the parameters of its policy."""
    fields = {field.name: getattr(phase, field.name) for field in dataclasses.fields(PolicyPhase)}
    return LibraryPhase(**fields, act=act, sha256=np.frombuffer(bytes.fromhex(digest), np.uint8))


def _check_fits(phase: PolicyPhase, interface: Interface, folder: Path, where: str) -> None:
    if LIBRARY not in interface.files:
        raise InputError(
            where,
            expected="an export with a compiled library, which `--format c99` writes",
            found=f"{folder}: --format {interface.target}",
            remedy="export the policy with --format c99",
        )
    env = phase.environment
    pairs = (
        ("plugin", interface.plugin, phase.origin.name),
        ("observations", [field.name for field in interface.observations], list(env.observation_names)),
        ("actions", [field.name for field in interface.actions], list(env.action_names)),
        ("seconds between two actions", interface.control_period_s, env.control_period_s),
    )
    for what, exported, current in pairs:
        if exported != current:
            raise StaleError(
                where,
                expected=f'an export for phase "{phase.name}", with {what} {current}',
                found=f"{exported} ({folder})",
                remedy="export the policy of this phase again",
            )


def _check_golden(library: Library, folder: Path, observed: int) -> None:
    """Call the library once; a wrong width would read beyond an array."""
    try:
        golden = json_mapping((folder / GOLDEN).read_text(encoding="utf-8"))
        observations, actions = (np.array(golden[key], np.float64) for key in ("observations", "actions"))
        if observations.shape != (len(actions), observed) or actions.shape != (len(observations), library.actions):
            raise ValueError(f"arrays {list(observations.shape)} and {list(actions.shape)}")
        got = library.act(observations)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last: no such function
        raise MachineError(
            str(folder / GOLDEN),
            expected=f"observations [M, {observed}] and actions [M, {library.actions}] of the library beside it",
            found=exception_text(error),
            remedy="export the policy again",
        ) from None
    difference = np.abs(got - actions)
    if not (difference <= _MOST_APART).all():
        raise MachineError(
            str(folder / LIBRARY),
            expected=f"a library that reproduces {GOLDEN} within {_MOST_APART:g}",
            found=f"a difference of {np.nanmax(difference):.3g}",
            remedy="export the policy again on this machine",
        )
