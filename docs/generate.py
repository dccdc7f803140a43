"""Write what documentation takes from the code: `mission.schema.json` and the option table of `sac.md`.

Text outside the two markers of `sac.md` is written by hand and stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mission.sac_config import SacConfig
from mission.schema import mission_schema

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


def main() -> None:
    """Rewrite both files."""
    (DOCS / "mission.schema.json").write_text(schema_text(), encoding="utf-8")
    page = DOCS / "sac.md"
    page.write_text(with_options(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
