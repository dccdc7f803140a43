"""Draw the pictures of README.md and docs/ from a report and from the metrics of the shipped policies.

Command: mission fly missions/return_to_launch_site.yaml --flights 10000 --report reports/return_to_launch_site
         python docs/pictures.py reports/return_to_launch_site

It needs a Chromium (tests/engine/browser.py).
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

from mission.report.curves import learning_page

DOCS = Path(__file__).resolve().parent
SHIPPED = DOCS.parent / "checkpoints" / "shipped" / "return_to_launch_site"
REPLAY_FRACTION = 0.985  # fraction of the flight at which the replay is shown: the landing burn
# Of the learning curves the pictures show these charts; the page has one for every metric.
CURVES = ("Return", "Success", "Critic/Loss", "Actor/Loss", "Temperature/Value", "Critic/TDError")
sys.path.insert(0, str(DOCS.parent / "tests" / "engine"))
from browser import READY, Page, chromium  # noqa: E402


def clip(page: Page, element: str, path: Path) -> None:
    """Save a picture of the element that a JavaScript expression returns."""
    page.run(f"{element}.scrollIntoView({{block: 'center'}})")
    page.run("new Promise(done => setTimeout(done, 600))")
    box = page.run(
        f"(b => ({{x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}}))({element}.getBoundingClientRect())"
    )
    shot = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**box, "scale": 1})
    path.write_bytes(base64.b64decode(shot["data"]))
    print(path.relative_to(DOCS.parent), path.stat().st_size)


def main() -> None:
    """Write every picture."""
    report = Path(sys.argv[1]) / "index.html"
    with chromium() as page, tempfile.TemporaryDirectory() as folder:
        page.look(1280)
        page.open(report)
        page.run(READY)
        page.run(f"mission.seek({REPLAY_FRACTION} * mission.end())")
        clip(page, "document.getElementById('replay')", DOCS / "replay.png")
        scatter = "[...document.querySelectorAll('figure')].find(f => f.textContent.includes('touchdown points'))"
        clip(page, scatter, DOCS / "touchdown.png")
        page.open(learning_page(SHIPPED, Path(folder) / "learning.html"))
        title = "f.querySelector('figcaption').firstChild.textContent"
        page.run(
            f"document.querySelectorAll('figure').forEach(f => {json.dumps(CURVES)}.includes({title}) || f.remove())"
        )
        for phase in sorted(path.parent.name for path in SHIPPED.glob("*/metrics.jsonl")):
            section = f"[...document.querySelectorAll('section')].find(s => s.querySelector('h2').textContent.trim() === '{phase}')"
            clip(page, section, DOCS / "phases" / f"{phase}.png")


if __name__ == "__main__":
    main()
