"""Write what documentation takes from the code: `mission.schema.json`, `command-line.md`, the option table of `sac.md`.

Text outside the two markers of `sac.md` is written by hand and stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from mission.cli import app
from mission.missionfile.schema import mission_schema
from mission.sac.config import SacConfig

DOCS = Path(__file__).resolve().parent
BEGIN = "<!-- options: written by docs/generate.py -->"
END = "<!-- end of options -->"


def schema_text() -> str:
    """The JSON Schema of mission files, as `mission schema` prints it."""
    return json.dumps(mission_schema(), indent=2) + "\n"


def options(config: BaseModel, prefix: str = "") -> list[tuple[str, Any, str, str]]:
    """(dotted name, default, meaning, the seed's name) of every option; nested models are spelled out."""
    rows = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            rows += options(value, f"{prefix}{name}.")
            continue
        meaning, _, seed = (field.description or "").rpartition(" Seed: ")
        rows.append((prefix + name, value, meaning, seed.removesuffix(".")))
    return rows


def options_table() -> str:
    """Markdown table of every `SacConfig` option."""
    lines = ["| option | default | meaning | seed |", "|---|---|---|---|"]
    for name, default, meaning, seed in options(SacConfig()):
        shown = json.dumps(default).strip('"')
        cells = [text.replace("|", "\\|") for text in (meaning, seed)]
        lines.append(f"| `{name}` | `{shown}` | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def with_options(page: str) -> str:
    """The page with the text between its markers replaced by the table."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{options_table()}\n\n{END}{tail}"


def command_line() -> str:
    """Markdown of every command: what it does, its arguments and options, as `--help` says it."""
    group: Any = typer.main.get_command(app)
    parts = ["# Command line", "Written by `docs/generate.py` from what `mission COMMAND --help` says."]
    for name, command in sorted(group.commands.items()):
        context = typer.Context(command, info_name=f"mission {name}")
        rows = [record for p in command.get_params(context) if p.name != "help" and (record := _parameter(p, context))]
        table = ["| argument or option | meaning |", "|---|---|", *(f"| `{a}` | {b} |" for a, b in rows)]
        parts += [f"## `mission {name}`", command.help or "", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _parameter(parameter: Any, context: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        return parameter.name.upper(), (parameter.help or "").replace("|", "\\|")
    left, right = parameter.get_help_record(context)
    return left.replace("|", "\\|"), " ".join(right.split()).replace("|", "\\|")


def main() -> None:
    """Rewrite the three files."""
    (DOCS / "command-line.md").write_text(command_line(), encoding="utf-8")
    (DOCS / "mission.missionfile.schema.json").write_text(schema_text(), encoding="utf-8")
    page = DOCS / "sac.md"
    page.write_text(with_options(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
