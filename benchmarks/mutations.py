"""Read mutated mission and vehicle files: each must be accepted or refused with a message, and quickly.

Claim: of 100,000 structure-aware mutations none ends with a traceback and none takes more than 2 s of processor time.

Command: python benchmarks/mutations.py [--count N] [--first N] [--json FILE]

A mutation takes a file of the repository apart, changes one to four places of the tree (deletes, renames, repeats, swaps,
nests, lengthens, scales, or puts in a hostile value) or of the text, and writes it again. A mission is read, and the
parameters of its phases are validated, with every file that they name; a vehicle is read, and its bodies are built.
Number and file decide a mutation, so `--first N --count 1` repeats one of them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mission_rocket
from common import parser as options_parser
from common import write_json
from mission_rocket import build_body, load_vehicle
from pydantic import ValidationError
from ruamel.yaml import YAML

from mission import MissionError, PhaseSpec, load_mission
from mission.missionfile.models import MissionFile
from mission.missionfile.reading import explain
from mission.missionfile.resolve import load_installed

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 2.0
SHIPPED = sorted((ROOT / "missions").glob("*.yaml"))
VEHICLES = [
    *sorted((Path(mission_rocket.__file__).parent / "data").glob("*.yaml")),
    *sorted((ROOT / "missions" / "vehicles").glob("*.yaml")),
]

# Pieces of text that mean something to YAML.
PIECES = [
    b":", b"\n", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!!python/object ", b"\t", b"'", b'"', b"|", b"? ",
    b"%YAML 1.1\n", b"---\n", b"\x00", b"\xc3", b"<<: ", b"1e999", b"0x", b".inf", b"#",
]  # fmt: skip
# Values as they would stand in the file.
HOSTILE = [
    "null", "~", "true", "yes", "0", "-1", "1", "-0.0", "0.5", "1e-300", "1e300", "-1e300", "1e999", ".nan", ".inf", "-.inf",
    "2147483648", "9223372036854775807", "9223372036854775808", "0x" + 400 * "f", "1e6", "'1'", "''", "[]", "{}", "[[]]",
    "{a: 1}", "[1, 2]", "[null]", "!!str x", "&a x", "*a", "{<<: {a: 1}}", "2026-01-01", '"\\0"', '"\\e[2J"', '"\\ud800"',
    "'<script>'", "x" * 5000, ".", "..", "./none.yaml", "./vehicles", "/dev/zero", "'./a\\0.yaml'", "./vehicles/small_booster.yaml",
    "falcon9_class", "agent", "guide", "landing_burn", "nothing_of_that_name", "'a: b'", "{? [1, 2] : 3}", "{1: 2, 1.5: 3}",
]  # fmt: skip
BOMB = "[&a [x, x], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c, *c], *d]"


class Raw(str):
    """Text that is written as it stands."""


class Ended(NamedTuple):
    """How the reading of a mutated file ended: accepted, the type of a refusal, or a traceback; processor time [s]."""

    how: str
    seconds: float
    traceback: str = ""


# A tree is a list of values, a list of (key, value) pairs with the mark "map" in front, or a scalar.


def tree_of(value: Any) -> Any:
    """Return plain data as a tree, in which a key may occur twice."""
    if isinstance(value, dict):
        return ["map", *([key, tree_of(item)] for key, item in value.items())]
    if isinstance(value, list):
        return ["list", *(tree_of(item) for item in value)]
    return value


def text_of(tree: Any) -> str:
    """Return a tree as YAML in flow style."""
    if isinstance(tree, Raw):
        return tree
    if not isinstance(tree, list):
        return json.dumps(tree)
    if tree[0] == "map":
        return "{" + ", ".join(f"{text_of(key)}: {text_of(item)}" for key, item in tree[1:]) + "}"
    return "[" + ", ".join(text_of(item) for item in tree[1:]) + "]"


def places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield (list, index) of every value, key and entry of a tree."""
    for at in range(1, len(tree)):
        yield tree, at
        if tree[0] == "map":
            yield tree[at], 0
            yield tree[at], 1
            if isinstance(tree[at][1], list):
                yield from places(tree[at][1])
        elif isinstance(tree[at], list):
            yield from places(tree[at])


def change(tree: list[Any], draw: random.Random) -> None:
    """Change one place of a tree."""
    found = list(places(tree))
    if not found:
        return
    inside, at = draw.choice(found)
    entry = inside[0] in ("map", "list") and at > 0  # of a list or mapping; else a key or a value of a pair
    what = draw.randrange(10)
    if what == 0 and entry:
        del inside[at]
    elif what == 1 and entry:
        inside.extend([inside[at]] * draw.choice((1, 2, 70, 700)))
    elif what == 2 and entry and len(inside) > 2:
        other = draw.randrange(1, len(inside))
        inside[at], inside[other] = inside[other], inside[at]
    elif inside[0] == "map" and at > 0:
        inside[at] = [inside[at][0], Raw(draw.choice(HOSTILE))]
    elif what == 3:
        other, there = draw.choice(found)
        if other[0] != "map" or there == 0:
            inside[at] = Raw(text_of(other[there]))
    elif what == 4:
        depth = draw.choice((1, 3, 31, 40, 3000))
        inside[at] = Raw("[" * depth + text_of(inside[at]) + "]" * depth)
    elif what == 5 and isinstance(inside[at], int | float):
        inside[at] = inside[at] * draw.choice((0, -1, 10, 1e-3, 1e3, 1e12, 1e300))
    elif what == 6 and isinstance(inside[at], str):
        cut = draw.randrange(len(inside[at]) + 1)
        inside[at] = inside[at][:cut] + draw.choice(("", "x", "s", "\0", "\n", "é", "_m")) + inside[at][cut + 1 :]
    elif what == 7:
        inside[at] = Raw(BOMB)
    else:
        inside[at] = Raw(draw.choice(HOSTILE))


def mutated(path: Path, number: int) -> bytes:
    """Return mutation `number` of a file."""
    draw = random.Random(f"{path.name} {number}")
    if draw.random() < 0.2:
        data = path.read_bytes()
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data) + 1)
            data = data[:at] + draw.choice(PIECES) + data[at + draw.randrange(12) :]
        return data
    tree = tree_of(content(path))
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        change(tree, draw)
    return text_of(tree).encode("utf-8", "surrogatepass")


@functools.cache
def content(path: Path) -> Any:
    """Return the data of a file."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


@functools.cache
def spec_of(plugin: str) -> PhaseSpec:
    """Return the record of an installed plugin."""
    return load_installed(plugin, plugin).spec


def read_mission(path: Path) -> None:
    """Read a mission and validate the parameters of its phases."""
    mission = load_mission(path)
    for index in range(len(mission.phases)):
        validate(mission, index)


def validate(mission: MissionFile, index: int) -> None:
    """Validate the parameters of one phase, as resolving the mission does before it builds the phase."""
    entry = mission.phases[index]
    model = spec_of(entry.plugin).params
    shared = {key: value for key, value in mission.params.items() if key in model.model_fields}
    try:
        model.model_validate(shared | entry.params, context={"folder": mission.folder})
    except ValidationError as error:
        raise explain(error, mission.source, ("phases", index, "params"), model) from None


def read_vehicle(path: Path) -> None:
    """Read a vehicle and build the bodies of the stages that can fly."""
    vehicle = load_vehicle(f"./{path.name}", path.parent)
    for stage, model in enumerate(vehicle.stages):
        if model.engines:
            build_body(vehicle, stage)


def ended(read: Callable[[Path], None], path: Path) -> Ended:
    """Read a file and say how it ended."""
    began, how, trace = time.process_time(), "accepted", ""
    try:
        read(path)
    except MissionError as error:
        how = type(error).__name__ if error.exit_code in (2, 3) else f"exit code {error.exit_code}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        how, trace = "traceback", traceback.format_exc()
    return Ended(how, time.process_time() - began, trace)


def run(folder: Path, count: int, first: int = 0) -> Iterator[tuple[str, int, Ended]]:
    """Yield (file, number, how it ended) of `count` mutations, of all files in turn; `folder` is written to."""
    shutil.copytree(ROOT / "missions" / "vehicles", folder / "vehicles", dirs_exist_ok=True)
    files = [*((path, read_mission) for path in SHIPPED), *((path, read_vehicle) for path in VEHICLES)]
    for number, (path, read) in itertools.islice(enumerate(itertools.cycle(files)), first, first + count):
        trial = folder / f"mutated_{path.name}"
        trial.write_bytes(mutated(path, number))
        yield path.name, number, ended(read, trial)


def warm_up() -> None:
    """Import every plugin and the YAML library: that is done once and is not what is measured."""
    for path in SHIPPED:
        for entry in load_mission(path).phases:
            spec_of(entry.plugin)
    with contextlib.suppress(MissionError):
        spec_of("nothing_of_that_name")


def main() -> None:
    options: argparse.ArgumentParser = options_parser(__doc__, peer=False)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--first", type=int, default=0)
    chosen = options.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for file, number, result in run(Path(folder), chosen.count, chosen.first):
            counts[result.how] += 1
            counts["over 2 s"] += result.seconds > LONGEST_S
            slowest = max(slowest, result.seconds)
            if result.traceback or result.seconds > LONGEST_S:
                print(
                    f"{file}, number {number}: {result.how} after {result.seconds:.1f} s\n{result.traceback}",
                    flush=True,
                )
    for how, times in sorted(counts.items()):
        print(f"{how}: {times:,}")
    print(f"slowest: {slowest:.2f} s")
    write_json(chosen.json, {"counts": dict(counts), "slowest_s": slowest})
    sys.exit(bool(counts["traceback"] or counts["over 2 s"]))


if __name__ == "__main__":
    main()
