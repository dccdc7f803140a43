"""Escape all text in a page that comes from outside the engine."""

from __future__ import annotations

import html


def escape(text: object) -> str:
    """Return text that is safe in HTML, as content and in quoted attributes.

    Control characters and unpaired surrogates, which the encoding of the page cannot represent, are replaced by
    escapes.
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))
    return html.escape(shown, quote=True)


def wide_table(label: str, rows: str) -> str:
    """Return a table that scrolls sideways where the screen is narrow, also by keys; `rows` is HTML, `label` text."""
    return f'<div class="scroll card" tabindex="0" role="region" aria-label="table: {escape(label)}"><table>{rows}</table></div>'
