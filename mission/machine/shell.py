"""Commands to type into the shell that started this process, so that each printed line can be copied and works."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path


def python_command() -> str:
    """Return how the shell runs this interpreter: a name if the search path finds it, else its path, quoted."""
    folder = Path(sys.executable).parent
    for name in () if _in_uv_run() else ("python3", "python"):
        found = shutil.which(name)
        if found is not None and Path(found).parent == folder:  # not resolved: that of an environment is a link
            return name
    return shlex.quote(sys.executable)


def mission_command() -> str:
    """Return how the shell runs the command `mission` of this environment."""
    if _in_uv_run():  # only its children have the environment on their search path
        return f"{'uv' if shutil.which('uv') else 'python3 -m uv'} run mission"
    found = shutil.which("mission")
    if found is not None and Path(found).resolve().parent == Path(sys.executable).parent.resolve():
        return "mission"
    return f"{python_command()} -m mission"


def install_requirement(requirement: str) -> str:
    """Return how the shell installs a requirement such as `mission-engine[onnx]` into this environment."""
    return install_command(f'"{requirement}"')


def install_command(*arguments: str) -> str:
    """Return how the shell installs into this environment; `arguments` are already quoted."""
    if importlib.util.find_spec("pip") is not None:
        return " ".join([python_command(), "-m pip install", *arguments])
    uv = os.environ.get("UV") or shutil.which("uv")  # an environment that uv made has no pip
    tool = shlex.quote(uv) if uv else "python3 -m uv"
    return " ".join([tool, "pip install", *arguments, "--python", shlex.quote(sys.executable)])


def _in_uv_run() -> bool:
    return "UV_RUN_RECURSION_DEPTH" in os.environ
