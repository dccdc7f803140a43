"""Checkpoints on disk; the only file that uses Orbax.

A step is one folder: a folder of Orbax's for each part of the state, `meta.json`, and `manifest.json` with the SHA-256
of every file; a policy holds the files of `mission.storage.export` too. It is written under a temporary name and
renamed, so a step exists completely or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from orbax.checkpoint import v1 as ocp

from mission.errors import MachineError, machine_errors
from mission.machine.devices import REPLICATED, mesh
from mission.storage.records import PolicyRecord, R, StepRecord, StoredRecord, read_record, upgrade
from mission.storage.stored import json_mapping

log = logging.getLogger("mission")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")


def content_hash(tree: Any) -> str:
    """Return the SHA-256 of the numbers of a pytree; it does not depend on where or when they were stored."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def write_step(
    final: Path, tree: dict[str, Any], record: StoredRecord, files: Mapping[str, bytes] | None = None
) -> None:
    """Write one step folder, atomically.

    Args:
      final: the folder; replaced if it exists.
      tree: the entries, each of which can be read alone; None is left out.
      record: becomes `meta.json`.
      files: further files, name -> content.

    Raises:
      MachineError: disk full or no permission; what was there before is still there.
    """
    with _new_step(final) as folder:
        for name, part in tree.items():
            part = _with_numbers(part)
            if jax.tree.leaves(part):
                _save(folder / name, part)
        for note in folder.rglob("commit_success.txt"):  # Orbax names this machine's folder in it
            note.write_text("committed\n")
        _write_beside(folder, record, files)


def _save(path: Path, tree: Any) -> None:
    """Write one entry; after an error no thread of Orbax's is left, which the end of the process would wait for.

    Folders are made before the threads start. Otherwise they wait 20 minutes for a folder that could not be made.
    """
    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    with context:
        ocp.save(str(path.resolve()), tree)


def _with_numbers(tree: Any) -> Any:
    """Return a tree without its arrays of size zero (None in their place), because Orbax does not store them.

    A field of a NamedTuple that has a default and holds nothing is left out, so that what was stored before a type got such
    a field can still be read. NamedTuples become dictionaries, as Orbax stores them.
    """
    fields, defaults = getattr(tree, "_fields", None), getattr(tree, "_field_defaults", {})
    if fields is not None:
        used = [name for name in fields if name not in defaults or jax.tree.leaves(getattr(tree, name))]
        return {name: _with_numbers(getattr(tree, name)) for name in used}
    if isinstance(tree, tuple | list):
        return type(tree)(_with_numbers(part) for part in tree)
    if isinstance(tree, dict):
        return {name: _with_numbers(part) for name, part in tree.items()}
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by their paths, which are the same for a NamedTuple and for its dictionary."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _empty(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)


def rewrite_record(folder: Path, record: StoredRecord, files: Mapping[str, bytes] | None = None) -> None:
    """Replace the record of a step, and further files of it, atomically; the arrays are not changed.

    Raises:
      MachineError: disk full or no permission; what was there before is still there.
    """
    with _new_step(folder) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)
        _write_beside(new, record, files)


def _write_beside(folder: Path, record: StoredRecord, files: Mapping[str, bytes] | None) -> None:
    (folder / "meta.json").write_text(record.model_dump_json(indent=1))
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)


@contextlib.contextmanager
def _new_step(final: Path) -> Generator[Path]:
    """Yield an empty folder that gets its manifest and becomes the step `final` once the block has ended."""
    temporary, old = final.parent / f".tmp-{final.name}", final.parent / f".tmp-old-{final.name}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        manifest = {str(p.relative_to(temporary)): _sha256(p) for p in _files(temporary)}
        with (temporary / "manifest.json").open("w") as stream:
            json.dump(manifest, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:  # Orbax wraps the errors of the system in its own
        shutil.rmtree(temporary, ignore_errors=True)
        raise MachineError(
            str(final),
            expected="a checkpoint to be written",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            remedy="free disk space or correct the permissions; the same command resumes from the last good checkpoint",
        ) from error


def check_format(folder: Path) -> None:
    """Check that this version reads the record of a step; missing or damaged files are left to `verify_step`.

    Raises:
      FormatError: it does not.
    """
    try:
        upgrade(json_mapping((folder / "meta.json").read_text(encoding="utf-8")), str(folder))
    except (OSError, ValueError):
        return


def verify_step(folder: Path, model: type[R]) -> R:
    """Check a step's files against its manifest and return its record.

    Raises:
      ValueError: says what is missing or altered.
      FormatError: the record has a format that this version does not read; nothing else is checked then.
    """
    check_format(folder)
    try:
        manifest = json_mapping((folder / "manifest.json").read_text(encoding="utf-8"))
        present = {str(p.relative_to(folder)) for p in _files(folder)}
        if present != set(manifest):
            raise ValueError(f"files missing or added: {', '.join(sorted(present ^ set(manifest)))[:200]}")
        for name, digest in manifest.items():
            if _sha256(folder / name) != digest:
                raise ValueError(f"{name} was altered")
        return read_record(model, (folder / "meta.json").read_text(encoding="utf-8"), str(folder))
    except OSError as error:
        raise ValueError(f"incomplete: {error.strerror or error}") from None


def read_tree(folder: Path, target: dict[str, Any]) -> dict[str, Any]:
    """Return entries of a stored step, placed on the devices of this process as the target is, or else on all of them.

    Args:
      folder: a verified step.
      target: entry -> pytree of arrays or shapes; the result has its structure. None stays None.

    Raises:
      ValueError: shapes or dtypes differ from the target's.
    """
    everywhere = NamedSharding(mesh(), REPLICATED)

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        own = getattr(leaf, "sharding", None)
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=own if isinstance(own, NamedSharding) else everywhere
        )

    abstract, tree = jax.tree.map(shape, target), {}
    for name, part in abstract.items():
        kept = _with_numbers(part)
        loaded = _by_path(ocp.load(str((folder / name).resolve()), kept)) if jax.tree.leaves(kept) else {}
        leaves = [loaded[at] if leaf.size else _empty(leaf) for at, leaf in _by_path(part).items()]
        tree[name] = jax.tree.unflatten(jax.tree.structure(part), leaves)
    for wanted, got in zip(jax.tree.leaves(abstract), jax.tree.leaves(tree), strict=True):
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            raise ValueError(f"stored {got.dtype}{list(got.shape)}, expected {wanted.dtype}{list(wanted.shape)}")
    return tree


class PhaseFolder:
    """`<checkpoints>/<mission>/<phase>/`: `policy`, `training/<step>`, `done`, `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.policy, self.training, self.metrics = path / "policy", path / "training", path / "metrics.jsonl"

    @property
    def done(self) -> bool:
        """True if policy and bank are complete; the marker is written last."""
        return (self.path / "done").is_file() and self.policy.is_dir()

    def mark_done(self) -> None:
        """Write the marker."""
        with machine_errors(self.path, "to write the marker", "free disk space"):
            (self.path / "done").write_text("policy and bank are complete\n")

    def mark_undone(self) -> None:
        """Remove the marker, before policy and bank are made again."""
        with machine_errors(self.path, "to remove the marker", "correct the permissions"):
            (self.path / "done").unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything that training stores for this phase, and the folder if it is empty then.

        Raises:
          MachineError: some of it could not be removed.
        """
        with machine_errors(self.path, "to remove it", "correct the permissions"):
            (self.path / "done").unlink(missing_ok=True)  # first, so that an interrupted removal is not "done"
            self.metrics.unlink(missing_ok=True)
            for folder in (self.policy, self.training, *self.path.glob(".tmp-*")):
                if folder.is_dir():
                    shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # it holds files of others, or does not exist
                self.path.rmdir()

    def steps(self) -> list[Path]:
        """Return the training steps, newest first."""
        found = [p for p in self.training.glob("*") if p.is_dir() and p.name.isdigit()]
        return sorted(found, key=lambda p: int(p.name), reverse=True)

    def save_training(self, step: int, tree: Any, record: StepRecord) -> None:
        """Write a training step; keep only it and the newest readable one before it."""
        write_step(self.training / str(step), tree, record)
        for old in self.steps()[2:]:
            shutil.rmtree(old, ignore_errors=True)

    def newest_training(self) -> tuple[Path, StepRecord] | None:
        """Return the newest readable step and its record; None if there is none. Nothing is changed.

        Raises:
          FormatError: the newest sound step has a format that this version does not read.
        """
        for folder in self.steps():
            with contextlib.suppress(ValueError):
                return folder, self._sound_record(folder)
        return None

    def _sound_record(self, step: Path) -> StepRecord:
        record = verify_step(step, StepRecord)
        if record.progress.env_steps != int(step.name):
            raise ValueError(f"it holds vehicle step {record.progress.env_steps}")
        return record

    def skip_damaged(self) -> None:
        """Rename every damaged step above the newest readable one, and remove what interrupted writes left."""
        for leftover in self.training.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in self.steps():
            try:
                self._sound_record(folder)
                return
            except ValueError as error:
                self.skip(folder, error)

    def skip(self, step: Path, error: Exception) -> None:
        """Rename a training step with a warning, so that it is kept for inspection but no longer in `steps`."""
        aside = step.with_name(f"{step.name}.unreadable")
        shutil.rmtree(aside, ignore_errors=True)
        step.rename(aside)
        log.warning("%s skipped: %s; it is now %s", step, error, aside.name)

    def check_formats(self) -> None:
        """Check that this version reads every record of the phase, so that training does not overwrite any of them.

        Raises:
          FormatError: it does not read one of them.
        """
        for folder in (self.policy, *self.steps()):
            check_format(folder)

    def save_policy(self, tree: Any, record: PolicyRecord, files: Mapping[str, bytes] | None = None) -> None:
        """Write actor, bank, record, and the files of a policy that can be read without the engine.

        An imitator that became the actor is stored once: `imitator` is then a file that names the other part.
        """
        if "imitator" in tree and content_hash(tree["imitator"]) == content_hash(tree["actor"]):
            tree = {part: content for part, content in tree.items() if part != "imitator"}
            files = {**(files or {}), "imitator": b"actor\n"}
        write_step(self.policy, tree, record, files)

    def policy_record(self) -> PolicyRecord | None:
        """Return the record of the stored policy; None if there is no policy.

        Raises:
          MachineError: there is a policy and it is damaged.
          FormatError: its record has a format that this version does not read.
        """
        if not self.policy.is_dir():
            return None
        try:
            return verify_step(self.policy, PolicyRecord)
        except ValueError as error:
            raise MachineError(
                str(self.policy),
                expected="a readable policy",
                found=str(error),
                remedy="`mission train` rebuilds it from the phase's last training step; without one, pass --fresh",
            ) from None

    def holds(self, part: str) -> bool:
        """Return whether the stored policy has a part: "actor", "imitator" or "bank"."""
        return (self.policy / part).exists()

    def load_policy(self, target: dict[str, Any]) -> dict[str, Any]:
        """Return parts of the policy, such as the actor or the bank, in the structure of a target tree.

        Raises:
          MachineError: the policy cannot be read.
        """
        names = {part: "actor" if (self.policy / part).is_file() else part for part in target}
        try:
            stored = read_tree(self.policy, {names[part]: shapes for part, shapes in target.items()})
            return {part: stored[name] for part, name in names.items()}
        except Exception as error:
            raise MachineError(
                str(self.policy),
                expected="a policy that fits this mission",
                found=f"{type(error).__name__}: {str(error)[:300]}",
                remedy="train the phase again (--fresh)",
            ) from error
