"""The page in a headless Chromium: no request, no error, a replay that moves, and no text of others that is run."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from browser import CHROMIUM, READY, chromium
from factory import ROOT
from mission_rocket.report import sections
from mission_rocket.report.touchdown import box_bound, ellipse
from synthetic import make_records

from mission import fly_mission, load_mission
from mission.report.handovers import compare_handovers
from mission.report.page import document, render_page
from mission.report.redraw import read_records

EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 2'>"


@pytest.fixture(scope="module")
def records():
    return make_records(400)


@pytest.fixture(scope="module")
def path(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(
        render_page(records, compare_handovers(records.flights, records.starts), {"landing_burn": sections})
    )
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
    tab.run("document.getElementById('replay').scrollIntoView()")
    return tab


def picture(page) -> str:
    return page.run("(mission.replay.render(), mission.replay.canvas.toDataURL())")


def booster(page) -> list[float]:
    return page.run("mission.replay.booster.position.toArray()")


def test_the_page_is_small_and_becomes_ready(page, path):
    assert path.stat().st_size < 8e6
    page.open(path)
    assert page.run(READY) > 0, "benchmarks/report.py measures the time"
    assert page.complaints == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen_and_draws(page, path, width, dark):
    page.look(width, dark=dark)
    page.open(path)
    assert page.run("document.documentElement.scrollWidth") == width
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == dark
    colours = """(() => { const gl = mission.replay.canvas.getContext('webgl2'), seen = new Set(); mission.replay.render();
        const w = gl.drawingBufferWidth, h = gl.drawingBufferHeight, pixels = new Uint8Array(4 * w * h);
        gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
        for (let i = 0; i < pixels.length; i += 4) seen.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
        return seen.size; })()"""
    assert page.run(colours) > 5, "sky, ground, and one colour per phase at least"
    assert page.complaints == []


def test_the_slider_moves_the_booster_and_the_charts(page, records):
    slide = "(s => { const t = document.getElementById('time'); t.value = s; t.dispatchEvent(new Event('input')); })"
    states = []
    for share in (100, 600, 1000):
        page.run(f"{slide}({share})")
        track = records.chosen[0].tracks
        end = track[-1].time_s[-1]
        at = float(end) * share / 1000
        part = next(t for t in track if at <= t.time_s[-1])
        expected = [np.interp(at, part.time_s, part.channels[f"position_{axis}_m"]) for axis in "xyz"]
        assert booster(page) == pytest.approx(expected, abs=60.0), "the track is thinned, so it is close and not equal"
        states.append((picture(page), page.run("document.querySelector('[data-value]').textContent")))
    assert len({shot for shot, _ in states}) == 3
    assert len({text for _, text in states}) == 3
    cursor = "document.querySelector('.chart[data-x=time]').scrollIntoView(); new Promise(d => setTimeout(d, 300))"
    page.run(cursor)
    read = "document.querySelector('.chart[data-x=time] .cursor').getAttribute('d')"
    before = page.run(read)
    page.run(f"{slide}(300)")
    assert page.run(read) != before


def test_play_pauses_and_speeds(page):
    page.run("mission.seek(0); document.getElementById('speed').value = 30; document.getElementById('play').click()")
    deadline = time.monotonic() + 10.0
    while page.run("mission.time") <= 2.0 and time.monotonic() < deadline:
        time.sleep(0.05)
    page.run("document.getElementById('play').click()")
    reached = page.run("mission.time")
    assert reached > 2.0
    time.sleep(0.2)
    assert page.run("mission.time") == reached
    assert page.run("document.getElementById('play').textContent") == "Play"


def test_a_lost_flight_can_be_chosen(page, records):
    at = next(i for i, flight in enumerate(records.chosen) if flight.role == "lost")
    option = page.run(f"document.getElementById('flight').options[{at}].textContent")
    assert "lost in" in option
    before = page.run("document.querySelectorAll('.chips button').length")
    page.run(f"(s => {{ s.value = {at}; s.dispatchEvent(new Event('change')) }})(document.getElementById('flight'))")
    assert page.run("document.querySelectorAll('.chips button').length") == len(records.chosen[at].tracks) <= before
    assert page.run("mission.end()") == pytest.approx(float(records.chosen[at].tracks[-1].time_s[-1]))


@pytest.mark.parametrize("view", ["follow", "overview", "free"])
def test_cameras(page, view):
    page.run("mission.seek(mission.end())")
    choose = (
        f"(v => {{ v.value = '{view}'; v.dispatchEvent(new Event('change')) }})(document.getElementById('replay-view'))"
    )
    page.run(choose)
    away = "mission.replay.camera.position.distanceTo(mission.replay.booster.getWorldPosition(mission.replay.camera.position.clone()))"
    first = page.run(away)
    page.run("mission.seek(mission.end() / 2)")
    second = page.run(away)
    if view == "follow":
        assert second == pytest.approx(first, rel=0.01)
        assert first < 300
    else:
        assert abs(second - first) > 1000


def test_text_of_others_is_not_run(tab, records, tmp_path):
    name = f"landing {EVIL}"
    last = dataclasses.replace(records.flights.phases[-1], name=name, causes=tuple(EVIL for _ in range(5)))
    flights = dataclasses.replace(records.flights, phases=(*records.flights.phases[:-1], last))
    tracks = records.chosen[0].tracks
    flight = dataclasses.replace(
        records.chosen[0], outcome=EVIL, tracks=(*tracks[:-1], dataclasses.replace(tracks[-1], phase=name))
    )
    evil = dataclasses.replace(
        records,
        mission=EVIL,
        flights=flights,
        guide=None,
        chosen=(flight,),
        starts={name: next(iter(records.starts.values()))},
    )
    path = tmp_path / "evil.html"
    path.write_text(render_page(evil, compare_handovers(evil.flights, evil.starts), {"x": sections}))
    tab.complaints.clear()
    tab.open(path)
    tab.run("mission.seek(mission.end()); document.querySelectorAll('details').forEach(d => (d.open = true))")
    assert tab.run("window.evil") is None
    assert tab.run("document.querySelectorAll('main img, header img').length") == 0
    assert EVIL in tab.run("document.querySelector('h1').textContent")
    assert tab.complaints == []


def test_the_vertical_mission_is_replayed(tab, tmp_path):
    mission = load_mission(ROOT / "missions" / "vertical.yaml")
    fly_mission(mission, flights=150, policy="guide", report=tmp_path / "out")
    _, flown = read_records(tmp_path / "out")
    assert [section.title for section in sections(flown)] == ["Replay", "Flight", "Touchdown", "Propellant"]
    path = tmp_path / "vertical.html"
    path.write_text(render_page(flown, compare_handovers(flown.flights, flown.starts), {"burn": sections}))
    tab.complaints.clear()
    tab.look(1280)
    tab.open(path)
    assert tab.run(READY) > 0
    tab.run("mission.seek(0)")
    assert booster(tab)[2] == pytest.approx(flown.chosen[0].tracks[0].channels["height_m"][0], rel=1e-4)
    assert not tab.run("mission.replay.booster.children.at(-1).visible"), "no flame while it coasts"
    tab.run("mission.seek(mission.end() - 1)")
    assert booster(tab)[2] < 100.0
    assert tab.run("mission.replay.booster.children.at(-1).visible"), "its mass falls: it burns"
    assert tab.complaints == []


def test_a_request_would_be_noticed(tab, tmp_path):
    """A page that requests something must give a complaint, or the other tests show nothing."""
    path = tmp_path / "asks.html"
    path.write_text(document("asks", "", [], tail="<img src='http://localhost:9/x.png'>"))
    tab.complaints.clear()
    tab.open(path)
    assert tab.complaints


# Tests that need no browser


def test_ellipses_contain_their_share():
    points = np.random.default_rng(0).multivariate_normal([3, -1], [[4, 1.5], [1.5, 2]], 20_000)
    for share in (0.5, 0.95, 0.99):
        x, y = ellipse(points, share)
        outline = np.stack([x, y], axis=1) - points.mean(axis=0)
        inverse = np.linalg.inv(np.cov(points.T))
        radius = np.einsum("ni,ij,nj->n", outline, inverse, outline)[0]
        centred = points - points.mean(axis=0)
        assert np.mean(np.einsum("ni,ij,nj->n", centred, inverse, centred) <= radius) == pytest.approx(share, abs=0.01)


def test_the_box_comes_from_the_phase():
    params = {
        "touchdown_speed_m_s": 2.0,
        "touchdown_lateral_speed_m_s": 1.0,
        "other_tilt_deg": 9.0,
        "touchdown_x": "no",
    }
    assert box_bound(params, ("speed",)) == 2.0
    assert box_bound(params, ("lateral",)) == 1.0
    assert box_bound(params, ("tilt",)) is None


def test_sections_draw_only_what_is_there(records):
    titles = [section.title for section in sections(records)]
    assert titles == ["Replay", "Flight", "Touchdown", "Propellant"]
    phases = tuple(
        dataclasses.replace(p, channels=tuple(f"other{i}" for i in range(len(p.channels))))
        for p in records.flights.phases
    )
    bare = dataclasses.replace(
        records,
        flights=dataclasses.replace(records.flights, phases=phases),
        bands=dataclasses.replace(records.bands, channels=phases[0].channels),
        chosen=(),
    )
    assert sections(bare) == ()


def test_marks_of_real_flights_are_drawn(records):
    page = "".join(section.html for section in sections(records))
    assert "CRS-12, landing burn" in page
    assert "OTV-5, entry burn start" in page
    assert "main engine cut-off" in page
    assert "1,637 to 1,685" in page
