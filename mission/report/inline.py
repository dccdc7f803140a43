"""A report's page as a value: a path, which a notebook shows as the page itself."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from xml.sax.saxutils import quoteattr, unescape

from mission.errors import InputError, machine_errors

_HEIGHT = 640  # of the frame, pixels


@dataclasses.dataclass(frozen=True)
class ReportPage(os.PathLike[str]):
    """A drawn page: a notebook displays the page itself; elsewhere it is a path (an `os.PathLike`).

    The notebook contains the whole page, so that it can be opened without the report. The scripts run in a separate
    frame without access to the notebook or its kernel.

    Attributes:
      path: of the file.
      only: title of the one section that a notebook shows; empty: all of them.
    """

    path: Path
    only: str = ""

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def section(self, title: str) -> ReportPage:
        """Return the page with only one section, such as "Replay" or "Telemetry".

        Raises:
          InputError: there is no such section.
        """
        titles = _sections(self._text())
        if title not in titles:
            raise InputError(
                str(self.path), expected=f"a section: {', '.join(titles)}", found=repr(title), remedy="name one of them"
            )
        return dataclasses.replace(self, only=title)

    def _text(self) -> str:
        with machine_errors(self.path, "a page that can be read", "draw it again"):
            return self.path.read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        text = self._text()
        if self.only:
            style = f"<style>header,main>:not(#{_sections(text)[self.only]}){{display:none}}</style>"
            text = text.replace("</head>", f"{style}</head>", 1)
        return (
            f'<iframe sandbox="allow-scripts" srcdoc={quoteattr(text)} title={quoteattr(self.path.name)} '
            f'style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'
        )


def _sections(page: str) -> dict[str, str]:
    """Return title -> id of the sections of a page."""
    found = re.findall(r'<section id="([\w-]+)"[^>]*><h2[^>]*>(.*?)</h2>', page)
    return {unescape(title, {"&quot;": '"', "&#x27;": "'"}): key for key, title in found}
