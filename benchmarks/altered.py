"""Altered checkpoints, reports and metadata: each is refused or reads as before.

Claim: over 5,000 structure-aware alterations there is no exception but those of the engine, and no number that differs
without an error or a warning.

Command: python benchmarks/altered.py [--count N] [--seed N] [--seconds S] [--commands SHARE] [--json FILE]

Reading it: a tiny mission is trained and flown once. Each round copies what it stored and alters one file: a value, key
or type in JSON, an array of an archive, or bytes. Half of the JSON alterations are crafted: hashes are made to fit
afterwards, so that the readers behind them are reached; of those only exceptions count, because whoever computes the
hashes anew may store any number. Every reader then reads the copy, and its result is compared with that of the original. One copy in ten is also given to
a command (`altered_commands.py`), which may end with exit code 0, 1, 2 or 3. A number may differ beside a warning.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import common
from alterations import alter
from altered_commands import OF_CHECKPOINTS, OF_REPORTS, run_command

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "engine"))
COMMANDS = 0.1  # share of the copies that are given to a command too
CHECKPOINT_READERS = ("actor", "bank", "trained", "policy", "mission", "step", "baseline", "benchmark", "curves")


class Stored(NamedTuple):
    """What is altered: a folder with `checkpoints/` and `report/`, and what readers and commands return.

    `read` takes a folder and names of readers (none: all), `command` a name and a folder; `before` holds the result and
    the number of warnings of those that were used for what nobody has altered.
    """

    root: Path
    read: Callable[..., dict[str, str]]
    command: Callable[[str, Path], str]
    before: dict[str, tuple[str, int]]


class Finding(NamedTuple):
    """An alteration with a wrong consequence: "exception" or "different"."""

    kind: str
    what: str
    detail: str


def prepare(root: Path) -> Stored:
    """Train and fly a tiny mission, and return what it stored."""
    from factory import MISSION, write_mission

    from mission import fly_mission, load_mission, resolve_mission, train_mission
    from mission.report.benchmark import Benchmark, write_benchmark
    from mission.storage.steps import PhaseFolder

    text = MISSION.partition("  - name: second")[0].replace("env_steps: 3000", "env_steps: 1000")
    path = write_mission(root, text + "    gate: {success_low: 0.0, flights: 50}\n")
    mission = load_mission(path)
    options: dict[str, Any] = {"checkpoints": root / "stored" / "checkpoints", "allow_local_plugins": True}
    train_mission(mission, baseline_flights=50, checkpoint_every_s=0, **options)
    first = root / "stored" / "checkpoints" / "trial" / "first"
    write_benchmark(first, Benchmark(channel="x_m", note="two flights", command="none", values={"agent": (4.0, 6.0)}))
    fly_mission(mission, flights=60, report=root / "stored" / "report", **options)
    phases = resolve_mission(mission, allow_local_plugins=True)
    made, original = PhaseFolder(first).policy_record(), root / "stored"
    read = lambda folder, only=(): read_all(folder, phases, made, only)  # noqa: E731
    command = lambda name, folder: run_command(name, folder, path, original)  # noqa: E731
    return Stored(original, read, command, {})


@contextlib.contextmanager
def copied(stored: Stored) -> Generator[Path]:
    """Yield a copy of what is stored."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(stored.root, Path(place) / "stored")
        yield Path(place) / "stored"


def result_before(stored: Stored, name: str) -> tuple[str, int]:
    """Return `result_of` for what nobody has altered."""
    if name not in stored.before:
        with copied(stored) as root:
            stored.before[name] = result_of(stored, name, root)
    return stored.before[name]


def result_of(stored: Stored, name: str, root: Path) -> tuple[str, int]:
    """Return what a reader or a command makes of a folder, and how many warnings it gave."""
    heard, logger = Warnings(), logging.getLogger("mission")
    logger.addHandler(heard)
    try:
        if name in (*OF_CHECKPOINTS, *OF_REPORTS):
            return stored.command(name, root), heard.count
        return stored.read(root, (name,))[name], heard.count
    finally:
        logger.removeHandler(heard)


def read_all(root: Path, phases: Any, made: Any = None, only: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what each reader makes of a folder, as text; an error of the engine is the text of the error's class.

    Args:
      root: the folder.
      phases: the resolved mission.
      made: the conditions under which the original was made.
      only: names of readers; empty: all.
    """
    from mission.errors import MissionError
    from mission.report.benchmark import read_benchmark
    from mission.report.curves import learning_page
    from mission.report.redraw import draw_report
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
        "report reader": lambda: draw_report(root / "report").path.read_text(),
        "benchmark": lambda: str(read_benchmark(folder.path) or ""),
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


class Warnings(logging.Handler):
    """Counts the warnings of the engine."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.count += 1


def try_one(stored: Stored, seed: int, commands: float = COMMANDS) -> tuple[str, Finding | None]:
    """Alter a copy, read it, and return what was altered and the wrong consequence, if any."""
    draw = random.Random(seed)
    with copied(stored) as root:
        what, crafted = alter(root, draw)
        of_report = what.startswith("report/")
        names = ["report reader"] if of_report else list(CHECKPOINT_READERS)
        if draw.random() < commands:
            names.append(draw.choice(OF_REPORTS if of_report else OF_CHECKPOINTS))
        different = []
        for name in names:
            try:
                after, warnings = result_of(stored, name, root)
            except Exception:
                return what, Finding("exception", f"{seed}: {what}: {name}", traceback.format_exc())
            before, usual = result_before(stored, name)
            noticed = not after or after.startswith("refused") or warnings > usual
            different += [name] if after != before and not noticed else []
    if different and not crafted:
        return what, Finding("different", f"{seed}: {what}", ", ".join(different))
    return what, None


def run(
    stored: Stored, count: int, seed: int = 0, seconds: float = float("inf"), commands: float = COMMANDS
) -> tuple[Counter[str], list[Finding]]:
    """Try alterations until `count` or `seconds` are reached; return how many by file, and the findings."""
    until, files, findings = time.monotonic() + seconds, Counter(), []
    for number in range(count):
        what, finding = try_one(stored, seed + number, commands)
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
    options.add_argument("--commands", type=float, default=COMMANDS, help="share that is given to a command too")
    arguments = options.parse_args()
    logging.getLogger("mission").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        stored = prepare(Path(folder))
        began = time.monotonic()
        files, findings = run(stored, arguments.count, arguments.seed, arguments.seconds, arguments.commands)
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
