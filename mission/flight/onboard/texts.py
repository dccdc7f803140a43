"""The text files of an export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).with_name("templates")


def template(name: str, words: Mapping[str, str]) -> str:
    """Return a text of `templates/`, with each word replaced."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    return text
