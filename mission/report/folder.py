"""A report folder on disk: `summary.json`, `flights.npz`, the page, and batches of an unfinished run in `.flights`.

`summary.json` is written last and holds the SHA-256 of `flights.npz`, so an incomplete folder is detected.
The names of the arrays are in docs/reports.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mission.errors import InputError, exception_text, machine_errors
from mission.report.arrays import Arrays
from mission.report.header import KIND, ReportHeader, UnfinishedKey, upgrade
from mission.storage.lock import LOCK
from mission.storage.protection import refuse_read_only
from mission.storage.steps import content_hash
from mission.storage.stored import json_mapping, read_stored, seal

log = logging.getLogger("mission")
_LABEL = "label"  # in a batch: its name, the hash of its key, and that of its arrays
SUMMARY, ARRAYS, PAGE, UNFINISHED, KEY = "summary.json", "flights.npz", "index.html", ".flights", "key.json"
_AGAIN = "write the report again with `mission fly FILE --report DIR`"


def read_header(folder: Path) -> ReportHeader:
    """Return the header of a report.

    Raises:
      InputError: there is no folder, it is empty, it holds something else, or the header is damaged.
      FormatError: the report has a format that this version does not read.
    """
    wanted = f"a report folder with {SUMMARY} and {ARRAYS}"
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise InputError(str(folder), expected=wanted, found=found, remedy=_AGAIN)
    path = folder / SUMMARY
    if not path.is_file():
        listing = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5])
        found = f"no {SUMMARY}, only {listing}" if listing else "an empty folder"
        raise InputError(str(folder), expected=wanted, found=found, remedy=_AGAIN)
    with machine_errors(path, "a summary that can be read", "check the permissions"):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return read_stored(ReportHeader, text, str(path), _upgrade_report)
    except ValueError as error:
        expected = "the summary of a report, as it was written"
        raise InputError(str(path), expected=expected, found=str(error), remedy=_AGAIN) from None


def _upgrade_report(data: dict[str, Any], where: str) -> dict[str, Any]:
    if data.get("kind") != KIND:
        remedy = "choose a folder that mission wrote"
        raise InputError(where, expected=f'"kind": "{KIND}"', found="something else", remedy=remedy)
    return upgrade(data, where)


def read_arrays(folder: Path, header: ReportHeader) -> Arrays:
    """Return all arrays of a report, after checking the hash in its header.

    Raises:
      InputError: they are missing, truncated or altered.
    """
    path = folder / ARRAYS
    if not path.is_file():
        raise InputError(str(path), expected="the arrays of the report", found="no such file", remedy=_AGAIN)
    with machine_errors(path, "arrays that can be read", "check the permissions"):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != header.flights_sha256:
        expected = f"{header.flights_bytes} bytes, as the summary says"
        found = f"{len(data)} bytes: truncated or altered"
        raise InputError(str(path), expected=expected, found=found, remedy=_AGAIN)
    try:
        return _load(io.BytesIO(data))
    except Exception as error:  # numpy and zipfile raise many kinds for a file that is damaged
        raise InputError(
            str(path), expected="the arrays of a report", found=exception_text(error), remedy=_AGAIN
        ) from None


def _load(source: Any) -> Arrays:
    with np.load(source, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def check_target(folder: Path, mission: str) -> None:
    """Reject a folder that must not be overwritten: only a report of the same mission may be.

    Raises:
      InputError: it holds something else, a damaged report, or a report of another mission, or it is read-only.
      FormatError: it holds a report of a format that this version does not read.
    """
    refuse_read_only(folder, "--report")
    if not folder.exists() or (folder.is_dir() and not any(path.name != LOCK for path in folder.iterdir())):
        return
    if folder.is_dir() and not (folder / SUMMARY).exists() and (folder / UNFINISHED / KEY).is_file():
        return
    header = read_header(folder)
    if header.mission != mission:
        raise InputError(
            str(folder),
            expected=f"a new folder, or a report of {mission}",
            found=f"a report of {header.mission[:64]}",
            remedy="choose another folder",
        )


def encode_arrays(arrays: Arrays) -> bytes:
    """Return the content of `flights.npz`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # ty: ignore[invalid-argument-type]
    return buffer.getvalue()


def write_folder(folder: Path, header: ReportHeader, arrays: bytes, page: str) -> None:
    """Write or replace the three files of a report, the header last; `arrays` is from `encode_arrays`.

    Raises:
      MachineError: disk full or no permission.
    """
    sealed = header.model_copy(update={"sha256": header.seal()})
    text = json.dumps(sealed.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    remedy = "free disk space or choose another folder; the same command resumes with the flights that are stored"
    with machine_errors(folder, "a report to be written", remedy):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / ARRAYS, arrays)
        write_page(folder / PAGE, page)
        write_file(folder / SUMMARY, text.encode())
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def write_file(path: Path, data: bytes) -> None:
    """Replace one file completely or not at all."""
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_page(path: Path, page: str) -> None:
    """Replace a page; half a surrogate pair, which a plugin may have written, becomes an escape."""
    write_file(path, page.encode(errors="backslashreplace"))


class UnfinishedReport:
    """Batches that were flown for a report that is not written yet; they are kept only under the same key."""

    def __init__(self, folder: Path, key: UnfinishedKey) -> None:
        """Open or create the store in a report folder; batches under another key are removed.

        Raises:
          FormatError: the stored batches have a format that this version does not read.
          MachineError: the folder cannot be written.
        """
        self.folder, self.key = folder / UNFINISHED, key
        with machine_errors(folder, "a folder to write to", "choose another --report"):
            if self._stored_key() == key:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_file(self.folder / KEY, key.model_dump_json().encode())

    def _stored_key(self) -> UnfinishedKey | None:
        """Return the key of the stored batches; None if there is none that can be used."""
        path = self.folder / KEY
        if not path.is_file():
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            return read_stored(UnfinishedKey, text, str(path), upgrade)
        except ValueError as error:
            log.warning("%s is damaged (%s): its batches are flown again", path, error)
            return None

    def has(self, name: str) -> bool:
        """Return whether a batch of this name is stored, in whatever condition."""
        return (self.folder / f"{name}.npz").is_file()

    def get(self, name: str) -> Arrays | None:
        """Return the arrays of a stored batch; None if it is missing, and None with a warning if it cannot be used."""
        path = self.folder / f"{name}.npz"
        try:
            arrays = _load(path)
            label = json_mapping(str(arrays.pop(_LABEL)))
        except FileNotFoundError:
            return None
        except Exception as error:  # numpy and zipfile raise many kinds for a file that is damaged
            log.warning("%s is damaged (%s): this batch is flown again", path, exception_text(error))
            return None
        if label != self._label(name, arrays):
            log.warning("%s holds another batch or was altered: this batch is flown again", path)
            return None
        return arrays

    def _label(self, name: str, arrays: Arrays) -> dict[str, Any]:
        """Return what a batch says about itself, so that one that was copied or altered is flown again."""
        return {"batch": name, "key": seal(self.key.model_dump(mode="json")), "sha256": content_hash(arrays)}

    def put(self, name: str, arrays: Arrays) -> None:
        """Store a batch.

        Raises:
          MachineError: disk full or no permission.
        """
        buffer = io.BytesIO()
        label = np.array(json.dumps(self._label(name, arrays)))
        np.savez(buffer, **arrays, **{_LABEL: label})  # ty: ignore[invalid-argument-type]
        with machine_errors(self.folder, "a batch to be stored", "free disk space or choose another --report"):
            write_file(self.folder / f"{name}.npz", buffer.getvalue())
