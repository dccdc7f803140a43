"""Altered checkpoints, reports and metadata: each is refused or reads as before.

Claim: over 5,000 structure-aware alterations there is no exception but those of the engine, and no number that differs
without an error or a warning.

Command: python benchmarks/altered.py [--count N] [--seed N] [--seconds S] [--json FILE]

Reading it: a tiny mission is trained and flown once. Each round copies what it stored and alters one file: a value, key
or type in JSON, an array of an archive, or bytes. Half of the JSON alterations are crafted: hashes are made to fit
afterwards, so that the readers behind them are reached; of those only exceptions count, because whoever computes the
hashes anew may store any number. Every reader then reads the copy, and its result is compared with that of the original.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "engine"))
_DRAWN = (".lock", "index.html", "curves.html")
CHECKPOINT_READERS = ("actor", "bank", "trained", "policy", "mission", "step", "baseline", "curves")
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1e308, -0.5, "", "x", "../x", "\ud800", "\x1b[2J", "<script>",
    "a" * 5000, [], [1], {}, {"x": 1}, [[[]]],
)  # fmt: skip


class Stored(NamedTuple):
    """What is altered: a folder with `checkpoints/` and `report/`, and what its readers return."""

    root: Path
    read: Callable[..., dict[str, str]]
    before: dict[str, str]


class Finding(NamedTuple):
    """An alteration with a wrong consequence: "exception" or "different"."""

    kind: str
    what: str
    detail: str


def prepare(root: Path) -> Stored:
    """Train and fly a tiny mission, and return what it stored."""
    from factory import MISSION, write_mission

    from mission import fly_mission, load_mission, resolve_mission, train_mission
    from mission.storage.steps import PhaseFolder

    text = MISSION.partition("  - name: second")[0].replace("env_steps: 3000", "env_steps: 1000")
    path = write_mission(root, text + "    gate: {success_low: 0.0, flights: 50}\n")
    mission = load_mission(path)
    options: dict[str, Any] = {"checkpoints": root / "stored" / "checkpoints", "allow_local_plugins": True}
    train_mission(mission, baseline_flights=50, checkpoint_every_s=0, **options)
    fly_mission(mission, flights=60, report=root / "stored" / "report", **options)
    phases = resolve_mission(mission, allow_local_plugins=True)
    made = PhaseFolder(root / "stored" / "checkpoints" / "trial" / "first").policy_record()
    stored = Stored(root / "stored", lambda folder, only=(): read_all(folder, phases, made, only), {})
    return stored._replace(before=stored.read(stored.root))


def read_all(root: Path, phases: Any, made: Any = None, only: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what each reader makes of a folder, as text; an error of the engine is the text of the error's class.

    Args:
      root: the folder.
      phases: the resolved mission.
      made: the conditions under which the original was made.
      only: names of readers; empty: all.
    """
    from mission.errors import MissionError
    from mission.report.curves import learning_page
    from mission.report.redraw import report_again
    from mission.storage.baseline import read_baseline
    from mission.storage.policies import refuse_other, stored_actor
    from mission.storage.steps import PhaseFolder, content_hash
    from mission.training.bank import load_bank
    from mission.training.recertify import mission_of, read_policies

    mission = root / "checkpoints" / "trial"
    folder = PhaseFolder(mission / "first")

    def baseline() -> str:
        stored = read_baseline(mission)
        return "" if stored is None else stored.record.model_dump_json() + str([o.steps.sum() for o in stored.outcomes])

    def bank() -> str:
        record = folder.policy_record()
        return "" if record is None else content_hash(load_bank(folder, phases[0], record))

    def trained() -> str:
        record = folder.policy_record()
        if record is None:
            return ""
        refuse_other(folder.path, record, made or record, phases)
        return record.model_dump_json()

    def newest() -> str:
        found = folder.newest_training()
        return "" if found is None else found[1].model_dump_json()

    readers: dict[str, Callable[[], str]] = {
        "actor": lambda: content_hash(stored_actor(folder, phases, 0, allow_stale=False)),
        "bank": bank,
        "trained": trained,
        "policy": lambda: str([record.model_dump_json() for record in read_policies(mission)]),
        "mission": lambda: mission_of(mission, read_policies(mission)).model_dump_json(),
        "step": newest,
        "baseline": baseline,
        "report": lambda: report_again(root / "report").read_text(),
        "curves": lambda: learning_page(mission, root / "curves.html").read_text(),
    }
    results = {}
    for name, reader in readers.items():
        if only and name not in only:
            continue
        try:
            results[name] = reader()
        except MissionError as error:
            results[name] = f"refused: {type(error).__name__}"
    return results


def alter_json(data: Any, draw: random.Random) -> Any:
    """Return JSON data with one change at a random place."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(data)
    if not places or draw.random() < 0.02:
        return draw.choice(STRANGE)
    node, key = draw.choice(places)
    value, way = node[key], draw.random()
    if way < 0.15:
        del node[key]
    elif way < 0.25 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif way < 0.35 and isinstance(node, list):
        node.insert(key, value)
    elif way < 0.6 and isinstance(value, int | float) and not isinstance(value, bool):
        node[key] = draw.choice([value + 1, value - 1, -value, value * 10, value * 1.01, str(value)])
    elif way < 0.7 and isinstance(value, str):
        node[key] = draw.choice([value[:-1], value + "x", value.upper(), value[::-1]])
    else:
        node[key] = draw.choice(STRANGE)
    return data


def alter_text(text: str, draw: random.Random) -> str:
    """Return JSON text with one change: in its structure, or in a line of a file of lines."""
    lines = text.splitlines()
    try:
        return json.dumps(alter_json(json.loads(text), draw))
    except ValueError:
        at = draw.randrange(len(lines)) if lines else 0
        lines[at : at + 1] = [json.dumps(alter_json(json.loads(lines[at]), draw))] if lines else ["{"]
        return "\n".join(lines) + "\n"


def alter_arrays(path: Path, draw: random.Random) -> None:
    """Change one array of an archive, and write the archive anew."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    name = draw.choice(sorted(arrays))
    values = arrays[name]
    if values.dtype.kind == "U":
        arrays[name] = np.array(alter_text(str(values), draw).encode(errors="replace").decode())
    else:
        changed = values.copy().reshape(-1)
        changed[draw.randrange(changed.size) if changed.size else slice(0)] = draw.choice([0, 1, 2, 200])
        ways = (
            changed.reshape(values.shape),
            changed[:-1],
            values.astype(np.float64),
            values[None],
            values.astype(str),
        )
        arrays[name] = draw.choice(ways)
    if draw.random() < 0.2:
        del arrays[name]
    np.savez(path, **arrays)


def alter_bytes(path: Path, draw: random.Random) -> None:
    """Truncate, flip, empty, remove, or replace a file."""
    data, way = bytearray(path.read_bytes()), draw.randrange(5)
    if way == 0:
        path.unlink()
    elif way == 1:
        path.unlink()
        path.mkdir()
    elif way == 2 and data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
    else:
        path.write_bytes(data[: draw.randrange(len(data) + 1)])


def make_hashes_fit(root: Path, path: Path) -> None:
    """Compute the hashes that cover an altered file, as somebody would who wants it to be read."""
    from mission.storage.stored import seal

    manifest = next((up / "manifest.json" for up in path.parents if (up / "manifest.json").is_file()), None)
    if manifest is not None and path != manifest:
        sums = json.loads(manifest.read_text())
        sums[str(path.relative_to(manifest.parent))] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(sums))
    summary = root / "report" / "summary.json"
    if path.parent == summary.parent:
        data = json.loads(summary.read_text())
        if isinstance(data, dict):
            if path.name == "flights.npz":
                data["flights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            data["sha256"] = seal({name: value for name, value in data.items() if name != "sha256"})
            summary.write_text(json.dumps(data))


def alter(root: Path, draw: random.Random) -> tuple[str, bool]:
    """Alter one file; return its name and whether the hashes were made to fit."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in _DRAWN]
    named = [path for path in files if path.suffix in (".json", ".jsonl", ".npz")]
    path = draw.choice(named if draw.random() < 0.8 else files)
    crafted = draw.random() < 0.5
    if path.suffix == ".npz" and draw.random() < 0.7:
        alter_arrays(path, draw)
    elif path.suffix in (".json", ".jsonl") and draw.random() < 0.9:
        path.write_text(alter_text(path.read_text(), draw))
    else:
        alter_bytes(path, draw)
        crafted = False
    if crafted:
        make_hashes_fit(root, path)
    return f"{path.relative_to(root)}{', crafted' if crafted else ''}", crafted


class Warnings(logging.Handler):
    """Counts the warnings of the engine."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.count += 1


def try_one(stored: Stored, seed: int) -> tuple[str, Finding | None]:
    """Alter a copy, read it, and return what was altered and the wrong consequence, if any."""
    draw, heard = random.Random(seed), Warnings()
    logger = logging.getLogger("mission")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "stored"
        shutil.copytree(stored.root, root)
        what, crafted = alter(root, draw)
        logger.addHandler(heard)
        try:
            after = stored.read(root, ("report",) if what.startswith("report/") else CHECKPOINT_READERS)
        except Exception:
            return what, Finding("exception", f"{seed}: {what}", traceback.format_exc())
        finally:
            logger.removeHandler(heard)
    free = crafted or "metrics.jsonl" in what  # lines of metrics have no hash: a curve shows what stands there
    changed = [name for name, text in after.items() if text != stored.before[name] and not text.startswith("refused")]
    changed = [name for name in changed if after[name] and not (name == "step" and heard.count)]
    if changed and not free:
        return what, Finding("different", f"{seed}: {what}", ", ".join(changed))
    return what, None


def run(stored: Stored, count: int, seed: int = 0, seconds: float = float("inf")) -> tuple[Counter[str], list[Finding]]:
    """Try alterations until `count` or `seconds` are reached; return how many by file, and the findings."""
    until, files, findings = time.monotonic() + seconds, Counter(), []
    for number in range(count):
        what, finding = try_one(stored, seed + number)
        files[what.rpartition("/")[2]] += 1
        findings += [finding] if finding is not None else []
        if time.monotonic() > until:
            break
    return files, findings


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--count", type=int, default=5000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=float("inf"))
    arguments = options.parse_args()
    logging.getLogger("mission").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        stored = prepare(Path(folder))
        began = time.monotonic()
        files, findings = run(stored, arguments.count, arguments.seed, arguments.seconds)
    for finding in findings:
        print(f"{finding.kind}: {finding.what}\n{finding.detail}")
    kinds = Counter(finding.kind for finding in findings)
    common.print_table([("file", "alterations"), *((name, str(n)) for name, n in files.most_common(20))])
    print(f"{files.total()} alterations in {time.monotonic() - began:.0f} s: "
          f"{kinds['exception']} exceptions, {kinds['different']} silently different")  # fmt: skip
    common.write_json(arguments.json, {"alterations": files.total(), **kinds})
    if findings:
        raise SystemExit("an alteration was not noticed")


if __name__ == "__main__":
    main()
