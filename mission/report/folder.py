"""A report folder on disk: `summary.json`, `flights.npz`, and chunks of an unfinished run under `.flights`.

`summary.json` is written last and holds the SHA-256 of `flights.npz`, so a folder is whole or noticed.
Array names are in docs/reports.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError, machine_errors
from mission.storage.lock import LOCK

FORMAT = 2
KIND = "mission report"
SUMMARY, ARRAYS, PAGE, UNFINISHED = "summary.json", "flights.npz", "index.html", ".flights"


def _refuse(folder: Path, expected: str, found: str, remedy: str) -> InputError:
    return InputError(str(folder), expected=expected, found=found, remedy=remedy)


def read_summary(folder: Path) -> dict[str, Any]:
    """The header of a report.

    Raises:
      InputError: no folder, empty, something else, damaged, or of another version.
    """
    wanted, again = f"a report folder with {SUMMARY} and {ARRAYS}", "make one with `mission fly FILE --report DIR`"
    if not folder.is_dir():
        raise _refuse(folder, wanted, "a file" if folder.exists() else "no such folder", again)
    path = folder / SUMMARY
    if not path.is_file():
        listing = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
        found = f"no {SUMMARY}, only {listing}" if listing else "an empty folder"
        raise _refuse(folder, wanted, found, again)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refuse(path, "the summary of a report", f"damaged JSON: {str(error)[:200]}", again) from None
    if not isinstance(summary, dict) or summary.get("kind") != KIND:
        raise _refuse(path, f'"kind": "{KIND}"', "something else", "choose a folder that this tool wrote")
    if summary.get("format") != FORMAT:
        found = f"format {str(summary.get('format'))[:40]}"
        raise _refuse(
            path,
            f"format {FORMAT}, which this version reads",
            found,
            "make the report again in a new folder, or use the version that wrote it",
        )
    return summary


def read_arrays(folder: Path, summary: dict[str, Any]) -> dict[str, np.ndarray]:
    """All arrays of a report, checked against the hash in its summary.

    Raises:
      InputError: missing, truncated or altered.
    """
    path, again = folder / ARRAYS, "make the report again with `mission fly FILE --report DIR`"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _refuse(path, "the arrays of the report", "no such file", again) from None
    if hashlib.sha256(data).hexdigest() != summary.get("flights_sha256"):
        expected = f"{summary.get('flights_bytes')} bytes, as the summary says"
        raise _refuse(path, expected, f"{len(data)} bytes: truncated or altered", again)
    return _load(io.BytesIO(data))


def _load(source: Any) -> dict[str, np.ndarray]:
    with np.load(source, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def check_target(folder: Path, mission: str) -> None:
    """Refuse a folder that must not be written to: only a report of the same mission is replaced.

    Raises:
      InputError: it holds something else, a damaged report, or one of another version or mission.
    """
    if not folder.exists() or (folder.is_dir() and not any(path.name != LOCK for path in folder.iterdir())):
        return
    if folder.is_dir() and not (folder / SUMMARY).exists() and (folder / UNFINISHED / "key.json").is_file():
        return
    summary = read_summary(folder)
    if summary.get("mission") != mission:
        found = f"a report of {str(summary.get('mission'))[:64]}"
        raise _refuse(folder, f"a new folder, or a report of {mission}", found, "choose another folder")


def write_folder(folder: Path, summary: dict[str, Any], arrays: dict[str, np.ndarray], page: str) -> None:
    """Write or replace a report's three files, the summary last.

    Raises:
      MachineError: disk full or no permission.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # ty: ignore[invalid-argument-type]
    data = buffer.getvalue()
    summary = {
        "kind": KIND, "format": FORMAT, **summary,
        "flights_bytes": len(data), "flights_sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    remedy = "free disk space or choose another folder; the same command goes on from the flights it has"
    with machine_errors(folder, "a report to be written", remedy):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / ARRAYS, data)
        write_file(folder / PAGE, page.encode())
        write_file(folder / SUMMARY, text.encode())
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Replace one file, whole or not at all."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


class Unfinished:
    """Chunks that were flown for a report that is not written yet; kept only under the same key."""

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.folder = folder / UNFINISHED
        text = json.dumps(key, sort_keys=True)
        with machine_errors(folder, "a folder to write to", "choose another --report"):
            if not (self.folder / "key.json").is_file() or (self.folder / "key.json").read_text() != text:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_file(self.folder / "key.json", text.encode())

    def get(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a stored chunk; None where it is missing or damaged."""
        try:
            return _load(self.folder / f"{name}.npz")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Store a chunk."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # ty: ignore[invalid-argument-type]
        write_file(self.folder / f"{name}.npz", buffer.getvalue())
