"""Formats of trajectories: closed forms, hand-computed attitudes, and independent readers of each format."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from mission_rocket.physics.gravity import pad_from_centre, polar_axis, wgs84
from mission_rocket.trajectories import aem, czml, kml, oem, rocketpy
from mission_rocket.trajectories.ccsds import Message
from mission_rocket.trajectories.course import Place, courses
from mission_rocket.trajectories.earth import east_north_up, ecef_of, geodetic_of, local_to_enu
from scipy.spatial.transform import Rotation

from mission import MissionError, Trajectory, TrajectoryPhase

LC_39A = (28.608389, -80.604333)
EPOCH = datetime(2026, 5, 1, 12, tzinfo=UTC)


def flight(turn: np.ndarray | None = None, latitude: float = 0.0, azimuth: float = 90.0) -> Trajectory:
    """A throw, 40 s up and 60 s down, in two phases, with the attitude `turn` (w, x, y, z) all the time."""
    phases = []
    for name, begin, end in (("rise", 0.0, 40.0), ("fall", 40.0, 100.0)):
        t = np.append(np.arange(begin, end, 0.5), [end, end])  # the end twice, as after a step that stops at an event
        channels = {
            "position_x_m": 30.0 * t,
            "position_y_m": -2.0 * t,
            "position_z_m": 400.0 * t - 5.0 * t**2,
            "velocity_x_m_s": np.full_like(t, 30.0),
            "velocity_y_m_s": np.full_like(t, -2.0),
            "velocity_z_m_s": 400.0 - 10.0 * t,
            "altitude_m": 400.0 * t - 5.0 * t**2,
            "engines_lit": np.where(t < 40.0, 9.0, 0.0),
        }
        if turn is not None:
            channels |= {f"attitude_{axis}": np.full_like(t, part) for axis, part in zip("wxyz", turn, strict=True)}
        params = {"latitude_deg": latitude, "azimuth_deg": azimuth}
        floats = {key: value.astype(np.float32) for key, value in channels.items()}
        phases.append(TrajectoryPhase(name, "throw", params, True, "ok", 0.0, t, floats))
    return Trajectory("throw", "digest", 5, "guide", 4711, tuple(phases))


UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


# The Earth


def test_places_on_the_ellipsoid_are_the_published_ones():
    np.testing.assert_allclose(ecef_of(0.0, 0.0, 0.0), [6378137.0, 0.0, 0.0])
    np.testing.assert_allclose(ecef_of(90.0, 0.0, 10.0), [0.0, 0.0, 6356752.314245 + 10.0], atol=1e-6)
    there = np.array([[28.6, -80.6, 12_345.0], [-45.0, 170.0, 0.0], [89.9, 10.0, 400_000.0], [0.0, 0.0, -20.0]])
    back = geodetic_of(np.array([ecef_of(*row) for row in there]))
    np.testing.assert_allclose(back[:, :2], there[:, :2], atol=1e-10)
    np.testing.assert_allclose(back[:, 2], there[:, 2], atol=1e-5)


@pytest.mark.parametrize("azimuth", [90.0, 0.0, 37.0])
def test_the_frame_of_the_pad_is_that_of_the_physics(azimuth):
    site = wgs84(latitude=np.radians(28.4858), azimuth=np.radians(azimuth))
    axes = east_north_up(28.4858, -80.5) @ local_to_enu(azimuth)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(axes @ np.array(polar_axis(site)), [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(axes @ np.array(pad_from_centre(site)), ecef_of(28.4858, -80.5, 0.0), atol=1e-6)


def test_downrange_of_an_azimuth():
    np.testing.assert_allclose(local_to_enu(90.0) @ [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], atol=1e-15)  # east
    np.testing.assert_allclose(local_to_enu(0.0) @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)  # north
    np.testing.assert_allclose(local_to_enu(0.0) @ [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], atol=1e-15)  # left of it: west


# CCSDS


def test_oem_is_read_by_another_program(tmp_path):
    ephemeris = pytest.importorskip("oem", reason="the reader oem is in the group dev")
    options = Message(epoch=EPOCH, creation_date=EPOCH, longitude_deg=LC_39A[1], latitude_deg=LC_39A[0], height_m=3.0)
    path = tmp_path / "flight.oem"
    path.write_text(oem.files([flight(UPRIGHT)], options)["flight-4711.oem"])
    read = ephemeris.OrbitEphemerisMessage.open(path)
    assert [segment.metadata["OBJECT_ID"] for segment in read] == ["throw-5-4711"] * 2
    assert {segment.metadata["REF_FRAME"] for segment in read} == {"ITRF2000"}
    states = [list(segment) for segment in read]
    assert [len(rows) for rows in states] == [81, 121]  # the end is not there twice
    pad, axes = ecef_of(*LC_39A, 3.0), east_north_up(*LC_39A)
    for rows, begin in zip(states, (0.0, 40.0), strict=True):
        for at, row in enumerate(rows):
            t = begin + 0.5 * at
            local = np.array([30.0 * t, -2.0 * t, 400.0 * t - 5.0 * t**2])
            np.testing.assert_allclose(np.array(row.position) * 1e3, pad + axes @ local, atol=2e-3)
            np.testing.assert_allclose(np.array(row.velocity) * 1e3, axes @ [30.0, -2.0, 400.0 - 10.0 * t], atol=1e-4)
    between = next(iter(read))(
        states[0][20].epoch + timedelta(seconds=0.25)
    )  # by the message's own Hermite polynomials
    t = 10.25
    local = np.array([30.0 * t, -2.0 * t, 400.0 * t - 5.0 * t**2])
    np.testing.assert_allclose(np.array(between.position) * 1e3, pad + axes @ local, atol=5e-3)
    text = path.read_text()
    assert "COMMENT 2026-05-01T12:00:40.000000 apogee" in text
    assert "COMMENT 2026-05-01T12:00:40.000000 cut-off" in text


def test_ccsds_messages_are_read_by_a_reader_of_the_standard_s_schema():
    ndm = pytest.importorskip("ccsds_ndm.ndm_kvn_io", reason="the reader ccsds-ndm is in the group dev").NdmKvnIo()
    turn = np.array([0.5, 0.5, 0.5, 0.5])
    options = Message(epoch=EPOCH, creation_date=EPOCH, longitude_deg=0.0)
    orbit = ndm.from_string(oem.files([flight(turn)], options)["flight-4711.oem"])
    assert len(orbit.body.segment) == 2
    first = orbit.body.segment[0].data.state_vector[0]
    assert float(first.x.value) == 6378.137
    read = ndm.from_string(aem.files([flight(turn)], options)["flight-4711.aem"])
    assert len(read.body.segment) == 2
    metadata = read.body.segment[1].metadata
    assert (metadata.ref_frame_a, metadata.ref_frame_b) == ("ITRF2000", "SC_BODY_1")
    assert len(read.body.segment[0].data.attitude_state) == 81


def quaternions(text: str) -> np.ndarray:
    rows = [line.split() for line in text.splitlines() if line[:4] == "2026"]
    return np.array([[float(value) for value in row[1:]] for row in rows])


def test_attitude_of_a_vehicle_that_stands_on_the_equator():
    """By hand: at latitude and longitude 0, with azimuth 90, the axes of the upright vehicle are those of the pad.

    Body x (east) is ITRF y, body y (north) is ITRF z, body z (up) is ITRF x. The turn of 120 degrees about (1, 1, 1) takes
    x to y, y to z and z to x: the quaternion is sin 60 / sqrt(3) three times, and cos 60.
    """
    options = Message(epoch=EPOCH, longitude_deg=0.0)
    found = quaternions(aem.files([flight(UPRIGHT)], options)["flight-4711.aem"])
    np.testing.assert_allclose(found, np.full((202, 4), 0.5), atol=1e-8)


def test_attitude_of_a_vehicle_that_lies_downrange():
    """By hand: nose (body z) to the east after a pitch of 90 degrees about y: body x is then down, body y still north.

    At latitude 0 and longitude 90 the axes of the pad are east = -X, north = Z, up = Y in ITRF. So body x = -Y, y = Z, z = -X.
    CCSDS: the matrix M with v_B = M v_A has the axes of B, in A, as its rows; its quaternion is with q4 = sqrt(1 + trace) / 2 = 1/2
    from trace 0, and q1 = (M23 - M32) / (4 q4) = 1/2, q2 = (M31 - M13) / (4 q4) = -1/2, q3 = (M12 - M21) / (4 q4) = -1/2.
    """
    pitched = np.array([np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0])
    found = quaternions(aem.files([flight(pitched)], Message(epoch=EPOCH, longitude_deg=90.0))["flight-4711.aem"])[0]
    rows = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    by_hand = [(rows[1, 2] - rows[2, 1]) / 2, (rows[2, 0] - rows[0, 2]) / 2, (rows[0, 1] - rows[1, 0]) / 2, 0.5]
    np.testing.assert_allclose(found * np.sign(found[3]), by_hand, atol=1e-8)


def test_a_flight_without_attitude_has_no_aem_but_the_other_formats():
    with pytest.raises(MissionError, match="attitude"):
        aem.files([flight()], Message())
    assert oem.files([flight()], Message())
    assert "orientation" not in czml.files([flight()], Place())["flight-4711.czml"]


# Cesium, maps and RocketPy


def test_czml_is_read_by_another_program():
    reader = pytest.importorskip("czml3", reason="the reader czml3 is in the group dev")
    options = Place(epoch=EPOCH, longitude_deg=0.0)
    text = czml.files([flight(UPRIGHT)], options)["flight-4711.czml"]
    packets = reader.Document.model_validate_json(text).packets
    assert [packet.id for packet in packets[:4]] == ["document", "flight-4711", "flight-4711/phase/0-rise", "flight-4711/phase/1-fall"]  # fmt: skip
    vehicle = packets[1]
    samples = np.reshape(vehicle.position.cartesian.values, (-1, 4))
    np.testing.assert_allclose(samples[:, 0], np.arange(0.0, 100.1, 0.5))
    np.testing.assert_allclose(samples[80, 1:], [6378137.0 + 8000.0, 1200.0, -80.0], atol=2e-3)
    turns = np.reshape(vehicle.orientation.unitQuaternion.values, (-1, 5))
    nose = Rotation.from_quat(turns[0, 1:]).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(nose, [1.0, 0.0, 0.0], atol=1e-8)  # up, at latitude and longitude 0
    names = [packet.name for packet in packets[4:]]
    assert {"rise begins", "apogee", "cut-off", "fall ends: ok"} <= set(names)
    fall = packets[3].availability
    assert str(fall.start if hasattr(fall, "start") else fall).startswith("2026-05-01T12:00:40") or "12:00:40" in str(
        fall
    )


def test_kml_is_xml_with_heights_above_the_ellipsoid():
    text = kml.files([flight(UPRIGHT, latitude=30.0)], Place(epoch=EPOCH, longitude_deg=10.0))["flight-4711.kml"]
    space = {"k": "http://www.opengis.net/kml/2.2"}
    lines = ET.fromstring(text).findall(".//k:LineString/k:coordinates", space)
    assert len(lines) == 2
    lon, lat, height = (float(value) for value in str(lines[1].text).split()[0].split(","))
    assert height == pytest.approx(8000.0, abs=0.2)  # and 0.1 m because the Earth is round
    assert lon == pytest.approx(
        10.0 + np.degrees(1200.0 / (6391480.0 * np.cos(np.radians(30.0)))), abs=1e-6
    )  # 6383480 + 8000 m
    assert lat == pytest.approx(30.0 - np.degrees(80.0 / 6378137.0), abs=2e-5)


def test_rocketpy_imports_the_table(tmp_path):
    importer = pytest.importorskip("rocketpy.simulation.flight_data_importer", reason="rocketpy is in the group ref")
    path = tmp_path / "flight.csv"
    path.write_text(rocketpy.files([flight(UPRIGHT, azimuth=0.0)], Place())["flight-4711.rocketpy.csv"])
    read = importer.FlightDataImporter(str(path))
    assert read.z(40.0) == pytest.approx(8000.0)
    assert (read.y(40.0), read.x(40.0)) == (pytest.approx(1200.0), pytest.approx(80.0))  # downrange is north here
    assert read.vz(10.25) == pytest.approx(297.5)
    np.testing.assert_allclose(
        [getattr(read, f"e{i}")(5.0) for i in range(4)], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-7
    )


def test_times_in_the_table_increase_and_nothing_is_twice():
    text = rocketpy.files([flight(UPRIGHT)], Place())["flight-4711.rocketpy.csv"]
    times = [float(row["time"]) for row in csv.DictReader(io.StringIO(text))]
    assert len(times) == 201
    assert (np.diff(times) > 0.0).all()


# What is missing or breaks


def test_a_flight_that_breaks_is_written_up_to_there():
    whole = flight(UPRIGHT)
    whole.phases[1].channels["position_x_m"][30:] = np.nan
    (course,) = courses([whole], Place())
    assert [len(leg.time_s) for leg in course.legs] == [81, 30]
    assert all(event.time_s <= course.legs[-1].time_s[-1] for event in course.rocket_events())


def test_a_flight_without_positions_says_which_channels_it_needs():
    phase = TrajectoryPhase("cart", "cart", {}, True, "ok", 0.0, np.zeros(1), {"position_m": np.zeros(1, np.float32)})
    with pytest.raises(MissionError, match="position_x_m"):
        courses([Trajectory("m", "d", 1, "guide", 0, (phase,))], Place())


def test_defaults_are_lz_1_and_the_mission_file_has_precedence():
    (course,) = courses([flight(UPRIGHT, latitude=12.0, azimuth=45.0)], Place())
    assert (course.latitude_deg, course.azimuth_deg, course.place.longitude_deg) == (12.0, 45.0, -80.5444)
    (course,) = courses([flight(UPRIGHT)], Place(latitude_deg=1.0, azimuth_deg=2.0))
    assert (course.latitude_deg, course.azimuth_deg) == (1.0, 2.0)
