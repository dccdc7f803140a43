"""Structure-aware alterations of stored files; `altered.py` uses them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from pathlib import Path
from typing import Any

_DRAWN = (".lock", "index.html", "curves.html")
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1e308, -0.5, "", "x", "../x", "\ud800", "\x1b[2J", "<script>",
    "a" * 5000, [], [1], {}, {"x": 1}, [[[]]],
)  # fmt: skip


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
    if values.dtype.kind == "U" and name == "sha256":
        arrays[name] = np.array(str(values)[::-1])
    elif values.dtype.kind == "U":
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
    """Compute the hashes in an altered file and those that cover it, as somebody would who wants it to be read."""
    from mission.storage.stored import seal

    if path.name in ("metrics.jsonl", "benchmark.json"):
        path.write_text("".join(f"{sealed(line)}\n" for line in path.read_text().splitlines()))
    elif path.name == "baseline.npz":
        seal_arrays(path)
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


def sealed(text: str) -> str:
    """Return a line of JSON with the seal that fits it; what has none is returned as it is."""
    from mission.storage.stored import seal

    with contextlib.suppress(ValueError):
        data = json.loads(text)
        if isinstance(data, dict) and "sha256" in data:
            return json.dumps(data | {"sha256": seal({name: data[name] for name in data if name != "sha256"})})
    return text


def seal_arrays(path: Path) -> None:
    """Write an archive anew with the hash that fits its arrays."""
    import numpy as np

    from mission.storage.steps import content_hash

    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "sha256"}
    np.savez(path, **arrays, sha256=np.array(content_hash(arrays)))


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
