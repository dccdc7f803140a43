"""The report's page as it is used: two flights compared, zoom, keys, print, and readers of screens; in a headless Chromium."""

from __future__ import annotations

import base64
import json
import subprocess

import numpy as np
import pytest
from axe import checked
from browser import CHROMIUM, READY, chromium
from mission_rocket.report import sections
from synthetic import make_records

from mission.report.curves import learning_page
from mission.report.handovers import compare_handovers
from mission.report.page import render_page

FIRST, SECOND = 0, 3  # of the chosen flights; the second one was lost
CHART = ".chart[data-x=time][data-channels=altitude_m]"


@pytest.fixture(scope="module")
def records():
    return make_records(400)


@pytest.fixture(scope="module")
def path(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    shifts = compare_handovers(records.flights, records.starts)
    path.write_text(render_page(records, shifts, {"landing_burn": sections}))
    return path


@pytest.fixture(scope="module")
def tab():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with chromium() as page:
        yield page


@pytest.fixture
def page(tab, path):
    tab.complaints.clear()
    tab.look(1280)
    tab.open(path)
    tab.run(f"""document.querySelector('{CHART}').scrollIntoView(); new Promise(done => {{ const look = () =>
        document.querySelector('{CHART} .line.flight:not(.other)').getAttribute('d') ? done() : setTimeout(look, 20); look(); }})""")
    yield tab
    assert tab.complaints == []


def press(page, key, code=None, shift=False):
    text = {"text": key} if len(key) == 1 else {}
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, modifiers=8 if shift else 0, **(text if kind == "keyDown" else {}))  # fmt: skip


def choose(page, element, value):
    page.run(
        f"(s => {{ s.value = '{value}'; s.dispatchEvent(new Event('change')) }})(document.getElementById('{element}'))"
    )


def value_at(flight, channel, time_s):
    track = next(track for track in flight.tracks if time_s <= track.time_s[-1])
    return float(np.interp(time_s, track.time_s, track.channels[channel]))


def test_two_flights_are_drawn_in_the_charts(page):
    dashed = f"document.querySelector('{CHART} .line.other').getAttribute('d')"
    assert not page.run(dashed)
    choose(page, "other", SECOND)
    assert page.run(dashed).startswith("M")
    assert page.run(dashed) != page.run(f"document.querySelector('{CHART} .line.flight:not(.other)').getAttribute('d')")
    choose(page, "other", -1)
    assert not page.run(dashed)
    choose(page, "other", SECOND)
    choose(page, "flight", SECOND)
    assert page.run("mission.other") is None, "a flight is not compared with itself"


def test_the_table_holds_the_differences(page, records):
    choose(page, "other", SECOND)
    time_s = 60.0
    page.run(f"mission.seek({time_s})")
    read = """Object.fromEntries([...document.querySelectorAll('#differences tbody tr')].map(row =>
        [row.cells[0].textContent, [...row.cells].slice(1).map(cell => cell.textContent)]))"""
    rows = page.run(read)
    first, second = records.chosen[FIRST], records.chosen[SECOND]
    number = lambda text: float(text.replace(",", ""))  # noqa: E731
    for channel in ("altitude_m", "speed_m_s", "mach"):
        a, b, gap, _, end_a, end_b, end_gap = rows[channel]
        expected = [value_at(flight, channel, time_s) for flight in (first, second)]
        assert [number(a), number(b)] == pytest.approx(expected, rel=1e-3)
        assert number(gap) == pytest.approx(expected[1] - expected[0], rel=2e-2, abs=1e-3)
        ends = [float(flight.tracks[-1].channels[channel][-1]) for flight in (first, second)]
        assert [number(end_a), number(end_b)] == pytest.approx(ends, rel=1e-3, abs=1e-3)
        assert number(end_gap) == pytest.approx(ends[1] - ends[0], rel=1e-2, abs=1e-2)
    until = float(second.tracks[-1].time_s[-1])
    grid = np.linspace(0, until, 400)
    gaps = [abs(value_at(second, "altitude_m", t) - value_at(first, "altitude_m", t)) for t in grid]
    most = number(rows["altitude_m"][3].split(" at ")[0])
    assert most == pytest.approx(max(gaps), rel=0.02)
    page.run(f"mission.seek({until + 50})")
    assert page.run(read)["altitude_m"][1] == "\u2013", "the second flight is over"
    assert f"flight {second.number}" in page.run("document.getElementById('compare-who').textContent")


def test_the_replay_shows_both(page):
    page.run(READY)
    assert not page.run("mission.replay.ghost.visible")
    page.run("mission.seek(100)")
    before = page.run("(mission.replay.render(), mission.replay.canvas.toDataURL())")
    choose(page, "other", SECOND)
    assert page.run("mission.replay.ghost.visible")
    apart = "mission.replay.ghost.position.distanceTo(mission.replay.booster.position)"
    assert page.run(apart) > 10.0
    assert page.run("(mission.replay.render(), mission.replay.canvas.toDataURL())") != before
    choose(page, "other", -1)
    assert not page.run("mission.replay.ghost.visible")


def box(page):
    return page.run(
        f"(r => [r.left, r.top, r.width, r.height])(document.querySelector('{CHART} svg').getBoundingClientRect())"
    )


def drag(page, begin, end):
    left, top, width, height = box(page)
    for kind, share in (
        ("mousePressed", begin),
        ("mouseMoved", (begin + end) / 2),
        ("mouseMoved", end),
        ("mouseReleased", end),
    ):
        page.call("Input.dispatchMouseEvent", type=kind, x=left + share * width, y=top + height / 2, button="left", buttons=1, clickCount=1)  # fmt: skip


def labels(page):
    return page.run(
        f"[...document.querySelector('{CHART}').querySelectorAll('.ticks text[text-anchor=middle]')].map(t => Number(t.textContent.replace(/,/g, '')))"
    )


def test_a_drag_zooms_every_chart_over_time_and_a_double_click_undoes_it(page):
    whole, curve = labels(page), f"document.querySelector('{CHART} .line.flight:not(.other)').getAttribute('d')"
    before = page.run(curve)
    drag(page, 0.4, 0.6)
    low, high = page.run("mission.zoom")
    end = page.run("mission.end()")
    assert 0.25 * end < low < high < 0.65 * end
    assert all(low <= tick <= high for tick in labels(page)), (low, high, labels(page))
    assert page.run(curve) != before
    assert page.run(f"document.querySelector('{CHART} .plot > g').getAttribute('transform')").startswith("matrix(")
    left, top, width, height = box(page)
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            page.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=left + width / 2,
                y=top + height / 2,
                button="left",
                clickCount=count,
            )
    assert page.run("mission.zoom") is None
    assert labels(page) == whole
    assert page.run(curve) == before


def test_bands_and_curves_keep_together_under_zoom(page):
    """A point of the band is where the same numbers are on the zoomed axes, as are the curves."""
    page.run("mission.show([100, 180])")
    found = page.run(f"""(() => {{ const figure = document.querySelector('{CHART}'), b = figure.dataset.box.split(' ').map(Number);
        const m = figure.querySelector('.plot > g').getAttribute('transform').match(/[-0-9.e]+/g).map(Number);
        const ticks = [...figure.querySelectorAll('.ticks text[text-anchor=middle]')].map(t => [Number(t.textContent), Number(t.getAttribute('x'))]);
        return ticks.map(([value, x]) => [x, m[0] * (b[0] + (value - b[4]) / (b[5] - b[4]) * (b[2] - b[0])) + m[4]]); }})()""")
    assert len(found) >= 3
    for drawn, moved in found:
        assert moved == pytest.approx(drawn, abs=0.2)


def test_a_click_moves_the_clock_and_does_not_zoom(page):
    drag(page, 0.5, 0.501)
    assert page.run("mission.zoom") is None
    assert page.run("mission.time") == pytest.approx(0.5 * page.run("mission.end()"), rel=0.15)


def test_charts_are_operable_by_keys(page):
    page.run(f"document.querySelector('{CHART}').focus({{preventScroll: true}})")
    page.run("mission.seek(100)")
    press(page, "ArrowRight")
    assert page.run("mission.time") > 100
    press(page, "ArrowLeft")
    assert page.run("mission.time") == pytest.approx(100)
    press(page, "End")
    assert page.run("mission.time") == page.run("mission.end()")
    page.run("mission.seek(100)")
    press(page, "+")
    low, high = page.run("mission.zoom")
    assert low < 100 < high
    press(page, "+")
    assert page.run("mission.zoom[1] - mission.zoom[0]") == pytest.approx((high - low) / 2)
    press(page, "-")
    press(page, "0")
    assert page.run("mission.zoom") is None


def test_every_control_is_reached_by_tab(page):
    page.run("window.scrollTo(0, 0); document.activeElement.blur()")
    seen = []
    for _ in range(120):
        press(page, "Tab")
        seen.append(page.run("(e => e.id || e.className || e.tagName)(document.activeElement)"))
    for name in ("skip", "play", "flight", "time", "other", "zoom-in", "speed", "replay-view", "chart"):
        assert name in seen, name
    assert seen[0] == "skip"
    visible = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert visible != "none"


def test_the_camera_is_moved_by_keys(page):
    page.run(READY)
    page.run("document.querySelector('#replay canvas').focus()")
    camera = "mission.replay.camera.position.toArray()"
    before = page.run(camera)
    press(page, "ArrowLeft")
    turned = page.run(camera)
    assert turned != before
    assert np.linalg.norm(np.subtract(turned, before)) > 1.0
    press(page, "+")
    assert page.run(camera) != turned


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_accessible(page, width, dark):
    page.look(width, dark=dark)
    choose(page, "other", SECOND)
    page.run("document.querySelectorAll('details').forEach(part => (part.open = true))")
    assert page.run("document.documentElement.scrollWidth") == width
    assert checked(page) == ([], 100.0)


def test_the_score_falls_with_a_fault(page):
    """A page with a fault must score less, or the other test shows nothing."""
    page.run("document.getElementById('flight').removeAttribute('aria-label')")
    broken, score = checked(page)
    assert [rule for rule, _, _ in broken] == ["select-name"]
    assert 80.0 < score < 100.0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_learning_curves_are_accessible(tab, tmp_path, dark):
    folder = tmp_path / "vertical" / "coast"
    folder.mkdir(parents=True)
    rows = [
        {"kind": "chunk", "env_steps": 100 * n, "Episode/Return": n, "Speed/UpdatesPerSecond": 1.0 + n}
        for n in range(50)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tab.look(390, dark=dark)
    tab.open(learning_page(folder.parent))
    assert tab.run("document.documentElement.scrollWidth") == 390
    assert checked(tab) == ([], 100.0)


def pdf(page) -> bytes:
    return base64.b64decode(page.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])


def test_the_page_prints_as_a_summary_on_white(page):
    page.run(READY)
    page.look(1280, dark=True)
    data = pdf(page)
    assert data.startswith(b"%PDF")
    pages = data.count(b"/Type /Page\n") or data.count(b"/Type /Page ")
    assert 3 <= pages <= 12
    assert page.run("document.querySelectorAll('#replay img.printed').length") == 1, (
        "the replay is printed as a picture"
    )
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    shown = "(id => document.getElementById(id).offsetHeight > 0)"
    hidden = [name for name in ("player", "compare", "telemetry") if page.run(f"{shown}('{name}')")]
    assert hidden == []
    for name in ("losses", "margins", "handovers", "provenance"):
        assert page.run(f"{shown}('{name}')"), name
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.body).color") == "rgb(28, 32, 36)"
    page.call("Emulation.setEmulatedMedia", media="", features=[])


def test_the_browser_itself_prints_it(path, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    out = tmp_path / "report.pdf"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--print-to-pdf={out}",
    ]
    command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert out.read_bytes().startswith(b"%PDF")
    assert out.stat().st_size > 50_000
