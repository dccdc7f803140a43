"""Records of a made-up return flight with every channel of the six-degree-of-freedom phases; kinematics only."""

from __future__ import annotations

import numpy as np

from mission.phase import Limit
from mission.report.flight_records import Bands, ChosenFlight, FlightRecords, Flights, FlownPhase, Track, TrainingStarts
from mission.report.header import PhaseHeader, Provenance

# plugin, seconds, then (altitude km, downrange km) at its end
PHASES = (
    ("ascent", 145.0, 65.0, 38.0),
    ("flip_boostback", 50.0, 112.0, 62.0),
    ("ballistic_arc", 190.0, 54.0, 9.0),
    ("entry_burn", 20.0, 34.0, 6.0),
    ("landing_burn", 75.0, 0.0, 0.0),
)
CHANNELS = (
    "time_s",
    "phase_time_s",
    "position_x_m",
    "position_y_m",
    "position_z_m",
    "altitude_m",
    "downrange_m",
    "crossrange_m",
    "velocity_x_m_s",
    "velocity_y_m_s",
    "velocity_z_m_s",
    "speed_m_s",
    "vertical_speed_m_s",
    "flight_path_angle_deg",
    "tilt_deg",
    "attitude_w",
    "attitude_x",
    "attitude_y",
    "attitude_z",
    "rate_deg_s",
    "mach",
    "dynamic_pressure_pa",
    "incidence_deg",
    "q_alpha_pa_deg",
    "axial_load_m_s2",
    "lateral_load_m_s2",
    "mass_kg",
    "propellant_kg",
    "rcs_propellant_kg",
    "throttle",
    "thrust_n",
    "gimbal_pitch_deg",
    "gimbal_yaw_deg",
    "fin_pitch_deg",
    "fin_yaw_deg",
    "fin_roll_deg",
    "impact_x_m",
    "impact_y_m",
    "wind_x_m_s",
    "wind_y_m_s",
)
CAUSES = ("done", "off_course", "broke_up", "time_out", "non_finite")


def _knots(side: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seconds = np.concatenate([[0.0], np.cumsum([p[1] for p in PHASES])])
    up = np.array([0.0, *(1000 * p[2] for p in PHASES)])
    across = np.array([0.0, *(1000 * p[3] for p in PHASES)]) * side
    return seconds, up, across


def history(time_s: np.ndarray, seed: int) -> np.ndarray:
    """[T, C] of one flight; `seed` disperses it."""
    rng = np.random.default_rng(seed)
    scale, miss, turn = 1 + 0.02 * rng.standard_normal(), 6 * rng.standard_normal(2), rng.uniform(0.5, 1.5)
    seconds, up, across = _knots(scale)
    shape = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, 200))
    grid = np.concatenate([seconds[i] + (seconds[i + 1] - seconds[i]) * shape for i in range(len(PHASES))])
    z = np.interp(time_s, grid, np.interp(grid, seconds, up)) * scale
    x = np.interp(time_s, grid, np.interp(grid, seconds, across)) + miss[0] * time_s / seconds[-1]
    y = miss[1] * time_s / seconds[-1] + 300 * np.sin(time_s / 90)
    y -= y[-1] - miss[1] if len(time_s) and time_s[-1] >= seconds[-1] - 1 else 0.0
    v = [np.gradient(s, time_s) if len(time_s) > 1 else np.zeros(1) for s in (x, y, z)]
    speed = np.sqrt(sum(s**2 for s in v))
    pitch = np.interp(time_s, seconds, [0.0, 0.9, -2.2 * turn, 0.3, 0.1, 0.0])
    burning = np.interp(
        time_s,
        [0, 144, 145, 160, 161, 194, 195, 385, 386, 404, 405, 445, 446, 480],
        [1, 0.8, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0.7, 0.5],
    )
    q = 0.5 * 1.225 * np.exp(-z / 7500) * speed**2
    mass = np.interp(time_s, seconds, [549e3, 76e3, 48e3, 47.8e3, 38e3, 29e3])
    out = dict.fromkeys(CHANNELS, np.zeros_like(time_s))
    out |= {
        "time_s": time_s, "position_x_m": x, "position_y_m": y, "position_z_m": z, "altitude_m": z, "downrange_m": x,
        "crossrange_m": y, "velocity_x_m_s": v[0], "velocity_y_m_s": v[1], "velocity_z_m_s": v[2], "speed_m_s": speed,
        "vertical_speed_m_s": v[2], "tilt_deg": np.degrees(np.abs(pitch)), "attitude_w": np.cos(pitch / 2),
        "attitude_y": np.sin(pitch / 2), "mach": speed / 300, "dynamic_pressure_pa": q, "throttle": burning,
        "flight_path_angle_deg": np.degrees(np.arctan2(v[2], np.hypot(v[0], v[1]) + 1e-9)),
        "mass_kg": mass, "propellant_kg": mass - 25.6e3, "thrust_n": burning * 845e3, "axial_load_m_s2": 10 + 20 * burning,
        "gimbal_pitch_deg": 3 * np.sin(time_s / 3), "fin_pitch_deg": 8 * np.sin(time_s / 7), "fin_yaw_deg": 5 * np.cos(time_s / 9),
        "impact_x_m": x, "wind_x_m_s": 10 + 0 * time_s,
    }  # fmt: skip
    return np.stack([out[name] for name in CHANNELS], axis=-1).astype(np.float32)


def make_flights(count: int, policy: str, lost: float) -> Flights:
    rng = np.random.default_rng(len(policy))
    seconds = _knots(1.0)[0]
    entered = np.ones(count, bool)
    phases = []
    tables = np.stack([history(seconds, n) for n in range(count)])  # [N, phases + 1, C]
    for k, (plugin, duration, _, _) in enumerate(PHASES):
        success = rng.random(count) > lost
        cause = np.where(success, 0, rng.integers(1, 3, count)).astype(np.int32)
        limits = (Limit("dynamic_pressure_pa", maximum=35e3 if k == 0 else 80e3),)
        pressure = np.abs(rng.normal(28e3 if k == 0 else 60e3, 4e3, (count, 1))).astype(np.float32)
        params = {"touchdown_speed_m_s": 2.0, "touchdown_distance_m": 20.0, "touchdown_tilt_deg": 5.0} if k == 4 else {}
        end = tables[:, k + 1].copy()
        if k == len(PHASES) - 1:
            end[:, CHANNELS.index("speed_m_s")] = np.abs(rng.normal(1.0, 0.4, count))
            end[:, CHANNELS.index("vertical_speed_m_s")] = -end[:, CHANNELS.index("speed_m_s")]
            end[:, CHANNELS.index("tilt_deg")] = np.abs(rng.normal(1.5, 0.8, count))
        phases.append(
            FlownPhase(
                name=plugin,
                plugin=plugin,
                params=params,
                causes=CAUSES,
                channels=CHANNELS,
                limits=limits,
                entered=entered,
                success=success & entered,
                cause=cause,
                returns=np.zeros(count, np.float32),
                duration_s=np.full(count, duration, np.float32),
                enter=tables[:, k],
                end=end,
                lowest=0 * pressure,
                highest=pressure,
            )
        )
        entered = entered & success
    return Flights(policy, tuple(phases))


def make_records(count: int = 400, mission: str = "return") -> FlightRecords:
    """N flights by agents and guides, six of them whole."""
    flights, guide = make_flights(count, "agent", 0.01), make_flights(count, "guide", 0.08)
    seconds = _knots(1.0)[0]
    grid = np.arange(0.0, seconds[-1] + 0.5, 0.5)
    several = np.stack([history(grid, n) for n in range(60)])
    p05, p50, p95 = np.quantile(several, (0.05, 0.5, 0.95), axis=0).astype(np.float32)
    bands = Bands(
        flights=count, time_s=grid, count=np.full(len(grid), count), channels=CHANNELS, p05=p05, p50=p50, p95=p95
    )
    lost = np.flatnonzero(~flights.success)[:3].tolist()
    numbers = [*np.flatnonzero(flights.success)[:3].tolist(), *lost]
    chosen = []
    for number, role in zip(numbers, ["nominal", "median", "worst", *["lost"] * len(lost)], strict=True):
        tracks = []
        for k, phase in enumerate(flights.phases):
            if phase.entered[number]:
                steps = np.arange(seconds[k], seconds[k + 1] + 0.05, 0.1 if k > 2 else 0.25)
                table = history(steps, number)
                tracks.append(
                    Track(phase.name, steps.astype(np.float32), {c: table[:, i] for i, c in enumerate(CHANNELS)})
                )
        chosen.append(ChosenFlight(number, role, flights.outcome(number), tuple(tracks)))
    starts = {
        p.name: TrainingStarts("stored end states", p.enter[:200] * (1.3 if p.name == "landing_burn" else 1.0))
        for p in flights.phases[1:]
    }
    return FlightRecords(
        mission=mission,
        digest="0" * 64,
        seed=7,
        headers=tuple(phase_header(phase) for phase in flights.phases),
        flights=flights,
        guide=guide,
        starts=starts,
        bands=bands,
        chosen=tuple(chosen),
        provenance=PROVENANCE,
    )


PROVENANCE = Provenance(
    commands=("mission fly made_up.yaml",),
    mission_file="made_up.yaml",
    engine="0",
    policies_sha256=(None,) * len(PHASES),
    training_seed=7,
    python="3",
    numpy="2",
    platform="cpu",
    devices=2,
    cores=2,
    jax="0",
    jaxlib="0",
    xla_flags="",
)


def phase_header(phase: FlownPhase) -> PhaseHeader:
    """What the header of a report would say of a phase."""
    return PhaseHeader(
        name=phase.name,
        plugin=phase.plugin,
        distribution="made-up",
        version="0",
        source_sha256="0" * 64,
        flown_by="agent",
        params=phase.params,
        causes=phase.causes,
        channels=phase.channels,
        limits=phase.limits,
        benchmark=None,
    )
