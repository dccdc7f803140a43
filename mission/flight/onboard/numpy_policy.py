"""A policy as numpy arrays, with a forward pass in numpy that needs nothing else."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np

from mission.flight.onboard.subject import Subject
from mission.flight.onboard.texts import template


def numpy_files(subject: Subject, notice: str) -> dict[str, bytes]:
    """Return `policy.npz` and `policy.py`, name -> content."""
    policy = subject.layers
    arrays = {
        f"{name}_{at}": values
        for at, layer in enumerate(policy.layers)
        for name, values in (
            ("kernel", layer.kernel),
            ("bias", layer.bias),
            ("scale", layer.scale),
            ("shift", layer.shift),
        )
        if values is not None
    }
    if policy.mean is not None:
        arrays |= {"mean": policy.mean, "deviation": policy.std}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    words = {
        "__NOTICE__": "".join(f"# {line}".rstrip() + "\n" for line in notice.splitlines()),
        "__PHASE__": subject.phase.name,
        "__ACTIVATIONS__": json.dumps([layer.activation for layer in policy.layers]),
        "__EPSILON__": repr(policy.epsilon),
        "__MOST__": repr(policy.most),
    }
    return {"policy.npz": file.getvalue(), "policy.py": template("policy.py.txt", words).encode()}


def load_numpy_policy(folder: Path) -> ModuleType:
    """Return the exported `policy.py` of a folder as a module."""
    spec = importlib.util.spec_from_file_location("exported_policy", folder / "policy.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
