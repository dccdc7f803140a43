"""Write the pages that come from code.

`mission.schema.json`, `vehicle.schema.json` and `command-line.md` come from the models of mission and vehicle files and
the command line, `python-api.md` from the docstrings of `mission.__all__`, and the option table of `sac.md` from `SacConfig`. Text outside the two
markers of `sac.md` is written by hand and is kept. `notebooks/NAME.md` shows the cells of the notebook `NAME.ipynb` on the site.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import mission_rocket
import typer
from pydantic import BaseModel

import mission
from mission.cli import app
from mission.errors import FourParts, MissionError
from mission.missionfile.schema import mission_schema
from mission.sac.config import SacConfig

DOCS = Path(__file__).resolve().parent
BEGIN = "<!-- options: written by docs/generate.py -->"
END = "<!-- end of options -->"

# Sections of the Python API: a title, what the section is for, and the families whose public names belong to it.
# A name listed in `_NAMED` goes to its section whatever its home is.
_SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Load",
        "Read a mission and check it; [In a notebook](install.md#in-a-notebook) shows the whole workflow.",
        ("missionfile", "machine"),
    ),
    ("Train", "Train the phases of a mission.", ("training", "observers")),
    (
        "Fly",
        "Fly a mission and read its summary.",
        ("report.summary", "report.merging", "report.compare", "report.tables", "scale", "flight", "storage"),
    ),
    (
        "Step and act",
        "Phases, policies and banks for your own code; [Other frameworks](other-frameworks.md) has examples.",
        ("adapters",),
    ),
    ("Sweep and search", "Train many times; [Sweeps and searches](sweeps.md) explains both.", ("scale",)),
    ("Report", "Draw the page of a report, and add sections to it.", ("report",)),
    ("Write a phase", "The base classes and records of a phase plugin.", ("phase", "missionfile.hooks", "gate")),
    (
        "Configure the agent",
        "Settings of the learner; [Soft Actor-Critic](sac.md) explains each option.",
        ("sac", "learner", "strict"),
    ),
    (
        "Errors",
        "Every error that a caller can expect is a `MissionError`. `Interrupted` is not, so that `except "
        "MissionError` does not swallow Ctrl-C.",
        ("errors",),
    ),
)
_NAMED = {
    "ExportSummary": "Step and act",
    "MissionCheck": "Load",
    "check": "Load",
    "export_policy": "Step and act",
    "train_mission": "Train",
    "fly_mission": "Fly",
    "TrainingSummary": "Train",
    "TrainingRecord": "Train",
    "StopTraining": "Write a phase",
    "hookimpl": "Write a phase",
    "Phase": "Write a phase",
    "Trajectory": "Fly",
    "TrajectoryEvent": "Fly",
    "TrajectoryPhase": "Fly",
    "write_trajectories": "Fly",
}
_OBJECTS = {"hookimpl": "Decorator that marks a function as the implementation of a hook: `mission_phase` of a phase "
            "plugin, `mission_trajectory` of a format, or `mission_event` of an observer."}  # fmt: skip
_HEADS = ("Args", "Returns", "Raises", "Attributes")


def schema_text() -> str:
    """Return the JSON Schema of mission files, as `mission schema` prints it."""
    return json.dumps(mission_schema(), indent=2) + "\n"


def vehicle_schema_text() -> str:
    """Return the JSON Schema of vehicle files."""
    return json.dumps(mission_rocket.vehicle_schema(), indent=2) + "\n"


# The options of SAC


def options(config: BaseModel, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Return (dotted name, default, meaning) of every option; nested models are spelled out.

    A trailing "Seed: ..." of a description is dropped: `sac.md` maps those names in a table of its own.
    """
    rows = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            rows += options(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value, (field.description or "").partition(" Seed: ")[0]))
    return rows


def options_table() -> str:
    """Return a Markdown table of every `SacConfig` option."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for name, default, meaning in options(SacConfig()):
        shown = json.dumps(default).strip('"')
        lines.append(f"| `{name}` | `{shown}` | {_cell(meaning)} |")
    return "\n".join(lines)


def with_options(page: str) -> str:
    """Return the page with the text between its markers replaced by the table."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{options_table()}\n\n{END}{tail}"


# The command line


def command_line() -> str:
    """Return Markdown of every command: its help text, arguments and options."""
    group: Any = typer.main.get_command(app)
    parts = ["# Command line", "`docs/generate.py` writes this page from the help texts of `mission COMMAND --help`."]
    for name, command in sorted(group.commands.items()):
        context = typer.Context(command, info_name=f"mission {name}")
        rows = [record for p in command.get_params(context) if p.name != "help" and (record := _parameter(p, context))]
        table = ["| argument or option | meaning |", "|---|---|", *(f"| `{a}` | {b} |" for a, b in rows)]
        parts += [f"## `mission {name}`", command.help or "", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _parameter(parameter: Any, context: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        return parameter.name.upper(), _cell(parameter.help or "")
    left, right = parameter.get_help_record(context)
    return _cell(left), _cell(" ".join(right.split()))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# The Python API


def python_api() -> str:
    """Return Markdown of every public name, from its docstring."""
    parts = [
        "# Python API",
        "`docs/generate.py` writes this page from the docstrings. Everything listed here is imported from `mission`; "
        "nothing deeper is public, except `mission.testing` for the tests of a plugin.",
    ]
    placed = {name: _section(name) for name in mission.__all__}
    for title, purpose, _ in _SECTIONS:
        names = [name for name in sorted(placed, key=str.lower) if placed[name] == title]
        if not names:
            continue
        parts += [f"## {title}", purpose]
        for name in sorted(names, key=lambda n: inspect.isclass(getattr(mission, n))):
            parts += [f"### `{name}`", *_describe(name, getattr(mission, name))]
        if title == "Errors":
            parts.append(_error_table())
    return "\n\n".join(parts) + "\n"


def _section(name: str) -> str:
    if name in _NAMED:
        return _NAMED[name]
    home = getattr(mission, name).__module__
    fits = [
        (len(family), title)
        for title, _, families in _SECTIONS
        for family in families
        if f"{home}.".startswith(f"mission.{family}.")
    ]
    if not fits:
        raise ValueError(f"mission.{name} of {home} belongs to no section of the page: extend _SECTIONS")
    return max(fits)[1]


def _describe(name: str, value: Any) -> list[str]:
    if name in _OBJECTS:
        return [_OBJECTS[name]]
    doc = _docstring(inspect.getdoc(value) or "")
    if not inspect.isclass(value):
        return [f"```python\n{_signature(name, value)}\n```", doc]
    parts = [doc]
    if issubclass(value, BaseModel):
        if ".sac" not in value.__module__:  # sac.md has the options with their defaults
            rows = [f"| `{n}` | {_cell(field.description or '')} |" for n, field in value.model_fields.items()]
            parts.append("\n".join(["| field | meaning |", "|---|---|", *rows]))
    elif dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        rows = [f"| `{n}` | `{_cell(_annotation(a))}` |" for n, a in inspect.get_annotations(value).items()]
        parts.append("\n".join(["| field | type |", "|---|---|", *rows]))
    for method, member in vars(value).items():
        if inspect.isfunction(member) and member.__module__ == value.__module__ and not method.startswith("_"):
            head = f"#### `{name}.{method}`\n\n```python\n{_signature(method, member)}\n```"
            parts += [head, _docstring(inspect.getdoc(member) or "")]
    return [part for part in parts if part]


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__forward_arg__", None) or getattr(annotation, "__name__", str(annotation))


def _signature(name: str, function: Any) -> str:
    """Return `name(parameters) -> result`, on one line where it is short."""
    signature = inspect.signature(function)
    shown: list[str] = []
    keywords_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keywords_only:
            keywords_only = True
            shown.append("*")
        text = parameter.name
        if parameter.annotation is not inspect.Parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not inspect.Parameter.empty:
            default = str(parameter.default) if isinstance(parameter.default, Path) else parameter.default
            text += f" = {default!r}"
        shown.append(text)
    returns = signature.return_annotation
    result = "" if returns is inspect.Signature.empty else f" -> {_annotation(returns)}"
    line = f"{name}({', '.join(shown)}){result}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in shown) + f"){result}"


def _docstring(text: str) -> str:
    """Return a docstring as Markdown: `Args:` and its siblings become lists, indented blocks stay code."""
    blocks: list[str] = []
    lines = text.splitlines()
    while lines:
        line = lines.pop(0)
        head = line.strip().removesuffix(":")
        if line.endswith(":") and head in _HEADS and line == line.lstrip():
            body: list[str] = []
            while lines and (not lines[0].strip() or lines[0].startswith("  ")):
                body.append(lines.pop(0))
            blocks += [f"**{head}**", "", _items(textwrap.dedent("\n".join(body)).strip("\n")), ""]
        else:
            blocks.append(line)
    return "\n".join(blocks).strip()


def _items(body: str) -> str:
    """Return a list with one entry per unindented line; continuation lines join it."""
    entries: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        elif line.strip():
            entries.append(line.strip())
    return "\n".join("- " + re.sub(r"^([\w., ]+):(\s|$)", r"`\1`:\2", entry) for entry in entries)


def _error_table() -> str:
    rows = [
        f"| `{error.__name__}` | {error.exit_code} | {_cell((inspect.getdoc(error) or '').partition(chr(10) * 2)[0])} |"
        for error in error_classes()
        if error is not MissionError
    ]
    head = ["All of them; the exit code is that of the command line.", "", "| error | exit code | meaning |"]
    return "\n".join([*head, "|---|---|---|", *rows])


def error_classes(error: type[FourParts] = FourParts) -> list[type[FourParts]]:
    """Return every child of an exception in four parts, grandchildren too."""
    return [found for child in error.__subclasses__() for found in (child, *error_classes(child))]


# The notebooks


def notebook_page(path: Path) -> str:
    """Return Markdown of a notebook's cells, without outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = [
        source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for cell in cells
        for source in ["".join(cell["source"])]
    ]
    note = f"A test runs these cells. [Download the notebook]({path.name}), which shows the results in place."
    return "\n\n".join([shown[0], note, *shown[1:]]) + "\n"


def main() -> None:
    """Rewrite the files."""
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        path.with_suffix(".md").write_text(notebook_page(path), encoding="utf-8")
    (DOCS / "command-line.md").write_text(command_line(), encoding="utf-8")
    (DOCS / "python-api.md").write_text(python_api(), encoding="utf-8")
    (DOCS / "mission.schema.json").write_text(schema_text(), encoding="utf-8")
    (DOCS / "vehicle.schema.json").write_text(vehicle_schema_text(), encoding="utf-8")
    page = DOCS / "sac.md"
    page.write_text(with_options(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
