"""Vehicle files: strict pydantic models of the YAML, and the plain tuples that the physics functions take.

`vehicle: falcon9_class` names a file of this package; `vehicle: ./mine.yaml` names a file in the folder of the
mission file. The content of the file becomes part of the parameters, and so of the digest of a mission.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from mission import read_yaml
from mission_rocket.physics.constants import DEGREE, STANDARD_GRAVITY_M_S2
from mission_rocket.physics.tables import Grid, Table
from mission_rocket.physics.vehicle import (
    Aerodynamics,
    Body,
    EngineGroup,
    Fins,
    Gimbal,
    MassTable,
    Polar,
    Rcs,
    StructuralLimits,
    Tank,
)

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Lag = Annotated[float, Field(ge=1e-3)]
Range = Annotated[tuple[float, float], Field(strict=False)]  # lowest and highest value
Knots = Annotated[tuple[float, ...], Field(strict=False, min_length=2, max_length=64)]
_DATA = Path(__file__).parent / "data"


class Strict(BaseModel):
    """A model without coercion and unknown keys: immutable, with finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def misplaced(at: tuple[str | int, ...], value: Any, reason: str) -> ValidationError:
    """Return the error that a validator of a whole model raises, with the place of the value that it refuses."""
    kind = PydanticCustomError("value_error", "{reason}", {"reason": reason})
    return ValidationError.from_exception_data("parameters", [{"type": kind, "loc": at, "input": value}])


def increasing(name: str, knots: tuple[float, ...]) -> None:
    """Check that the knots of a table increase."""
    for at, (low, high) in enumerate(itertools.pairwise(knots)):
        if high <= low:
            raise ValueError(f"{name} must increase, but entry {at + 1} is {high:g} after {low:g}")


def as_long(name: str, row: tuple[float, ...], over: str, knots: tuple[float, ...]) -> None:
    """Check that a row of a table has as many entries as its knots."""
    if len(row) != len(knots):
        raise ValueError(f"{name} has {len(row)} entries, but {over} has {len(knots)}")


class TankModel(Strict):
    """An upright cylinder that fills from the bottom."""

    share: Annotated[float, Field(gt=0.0, le=1.0)]
    bottom_m: NotNegative
    radius_m: Positive
    density_kg_m3: Positive


class MassTableModel(Strict):
    """Centre of mass and inertia by propellant, where a published table replaces the tanks."""

    propellant_kg: Knots
    centre_of_mass_m: Knots
    inertia_transverse_kg_m2: Knots
    inertia_axial_kg_m2: Knots

    @model_validator(mode="after")
    def _tables(self) -> MassTableModel:
        increasing("propellant_kg", self.propellant_kg)
        for name in ("centre_of_mass_m", "inertia_transverse_kg_m2", "inertia_axial_kg_m2"):
            as_long(name, getattr(self, name), "propellant_kg", self.propellant_kg)
        if min(*self.inertia_transverse_kg_m2, *self.inertia_axial_kg_m2) <= 0.0:
            raise ValueError("inertias must be above 0")
        return self


class EngineGroupModel(Strict):
    """Engines that are lit and throttled together; thrust and specific impulse of one engine."""

    name: str
    positions_m: Annotated[
        tuple[Annotated[tuple[float, float], Field(strict=False)], ...],
        Field(strict=False, min_length=1, max_length=64),
    ]
    thrust_vacuum_n: Positive
    specific_impulse_vacuum_s: Positive
    exit_area_m2: NotNegative
    throttle_min: Annotated[float, Field(gt=0.0, le=1.0)]
    ignitions: Annotated[int, Field(ge=1, le=1000)]
    lag_s: Lag


class GimbalModel(Strict):
    """The gimbal of all engines."""

    limit_deg: Annotated[float, Field(ge=0.0, le=45.0)]
    lag_s: Lag
    height_m: NotNegative


class FinsModel(Strict):
    """Four grid fins at 90 degrees; coefficients of one fin, referred to its own area."""

    area_m2: Positive
    height_m: Positive
    radius_m: Positive
    limit_deg: Annotated[float, Field(gt=0.0, le=60.0)]
    lag_s: Lag
    normal_mach: Knots
    normal_per_deg: Knots
    axial_mach: Knots
    axial: Knots

    @model_validator(mode="after")
    def _tables(self) -> FinsModel:
        for mach, force in (("normal_mach", "normal_per_deg"), ("axial_mach", "axial")):
            increasing(mach, getattr(self, mach))
            as_long(force, getattr(self, force), mach, getattr(self, mach))
        return self


class RcsModel(Strict):
    """The cold-gas thrusters; the thrust is the one available about one axis."""

    thrust_n: Positive
    height_m: Positive
    radius_m: Positive
    specific_impulse_s: Positive
    propellant_kg: NotNegative


class PolarModel(Strict):
    """Coefficients by incidence (rows) and Mach number (columns), and the centre of pressure."""

    centre_of_pressure_m: float
    centre_of_pressure_across_m: float | None = Field(
        None,
        description="At 90 degrees of incidence, where the cross-flow acts; by default that of small incidence.",
    )
    centre_of_pressure_carrying_m: float | None = Field(
        None, description="Centre of pressure with the upper stages on top."
    )
    incidence_deg: Knots
    lift_mach: Knots
    lift: Annotated[tuple[Knots, ...], Field(strict=False)]
    drag_mach: Knots
    drag: Annotated[tuple[Knots, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _tables(self) -> PolarModel:
        increasing("incidence_deg", self.incidence_deg)
        if self.incidence_deg[0] != 0.0:
            raise ValueError(f"incidence_deg must begin at 0, not {self.incidence_deg[0]:g}")
        for table in ("lift", "drag"):
            rows, mach = getattr(self, table), getattr(self, f"{table}_mach")
            increasing(f"{table}_mach", mach)
            if len(rows) != len(self.incidence_deg):
                raise ValueError(f"{table} has {len(rows)} rows, but incidence_deg has {len(self.incidence_deg)}")
            for at, row in enumerate(rows):
                as_long(f"{table} row {at}", row, f"{table}_mach", mach)
        if any(self.lift[0]):
            raise ValueError("lift must be 0 at incidence 0: it is odd in incidence")
        if min(min(row) for row in self.drag) < 0.0:
            raise ValueError("drag must not be negative")
        return self


class AerodynamicsModel(Strict):
    """Aerodynamics nose first and engines first."""

    reference_area_m2: Positive
    reference_length_m: Positive
    yaw_length_m: Positive | None = Field(None, description="For moments about the body's x axis; by default the same.")
    axial_length_m: Positive | None = Field(None, description="For the damping of roll; by default that of yaw.")
    damping: NotNegative = Field(0.0, description="Of pitch and yaw, -C_mq on length^2 / (2 V).")
    axial_damping: NotNegative = Field(0.0, description="Of roll, -C_lp on length^2 / (2 V).")
    moment_slope_per_deg: float = 0.0
    nose_first: PolarModel
    engine_first: PolarModel


class LimitsModel(Strict):
    """Structural limits, which reports show as margins."""

    dynamic_pressure_nose_first_pa: Positive
    dynamic_pressure_engine_first_pa: Positive
    q_alpha_pa_deg: Positive
    axial_load_m_s2: Positive
    lateral_load_m_s2: Positive
    body_rate_deg_s: Positive = 90.0


class StageModel(Strict):
    """A stage; one without engines can only be carried."""

    name: str
    length_m: Positive
    diameter_m: Positive
    dry_mass_kg: Positive
    dry_centre_of_mass_m: NotNegative
    dry_inertia_transverse_kg_m2: Positive
    dry_inertia_axial_kg_m2: Positive
    propellant_kg: NotNegative = 0.0
    tanks: Annotated[tuple[TankModel, ...], Field(strict=False)] = ()
    mass_table: MassTableModel | None = None
    engines: Annotated[tuple[EngineGroupModel, ...], Field(strict=False)] = ()
    gimbal: GimbalModel | None = None
    fins: FinsModel | None = None
    rcs: RcsModel | None = None
    aerodynamics: AerodynamicsModel | None = None
    limits: LimitsModel | None = None

    @model_validator(mode="after")
    def _whole(self) -> StageModel:
        if self.engines:
            missing = [part for part in ("gimbal", "aerodynamics", "limits") if getattr(self, part) is None]
            if missing:
                raise ValueError(f'stage "{self.name}" has engines, so it needs {", ".join(missing)}')
            if self.propellant_kg <= 0.0:
                raise ValueError(f'stage "{self.name}" has engines, so propellant_kg must be above 0')
            if bool(self.tanks) == (self.mass_table is not None):
                raise ValueError(f'stage "{self.name}" needs either tanks or mass_table')
        if self.dry_centre_of_mass_m > self.length_m:
            raise ValueError(
                f"dry_centre_of_mass_m {self.dry_centre_of_mass_m:g} is above the nose ({self.length_m:g})"
            )
        for part in ("fins", "rcs", "gimbal"):
            height = getattr(getattr(self, part), "height_m", 0.0)
            if height > self.length_m:
                raise ValueError(f"{part}.height_m {height:g} is above the nose ({self.length_m:g})")
        if self.tanks and abs(sum(tank.share for tank in self.tanks) - 1.0) > 1e-6:
            raise ValueError(f"the tanks' shares must add up to 1, not {sum(tank.share for tank in self.tanks):g}")
        for at, tank in enumerate(self.tanks):
            top = tank.bottom_m + tank.share * self.propellant_kg / (tank.density_kg_m3 * math.pi * tank.radius_m**2)
            if top > self.length_m:
                raise ValueError(f"tanks[{at}] is filled to {top:.1f} m, above the stage's length {self.length_m:g} m")
        if self.aerodynamics is not None:
            for way in ("nose_first", "engine_first"):
                for name in ("centre_of_pressure_m", "centre_of_pressure_across_m"):
                    centre = getattr(getattr(self.aerodynamics, way), name)
                    if centre is not None and not 0.0 <= centre <= self.length_m:
                        raise ValueError(
                            f"aerodynamics.{way}.{name} {centre:g} lies outside the body (0 to {self.length_m:g} m)"
                        )
        return self


class VehicleModel(Strict):
    """A vehicle: its stages from the lowest up, in the order in which they fly."""

    name: str
    lift_off_mass_kg: Positive | None = Field(None, description="If given, the masses of the stages must add up to it.")
    stages: Annotated[tuple[StageModel, ...], Field(strict=False, min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _whole(self) -> VehicleModel:
        if not self.stages[0].engines:
            raise ValueError(f'the first stage "{self.stages[0].name}" has no engines')
        if self.lift_off_mass_kg is not None:
            dry = sum(stage.dry_mass_kg for stage in self.stages)
            total = dry + sum(stage.propellant_kg for stage in self.stages)
            if dry > self.lift_off_mass_kg:
                raise ValueError(f"the stages' dry mass {dry:g} kg is above lift_off_mass_kg {self.lift_off_mass_kg:g}")
            if abs(total - self.lift_off_mass_kg) > 1e-3 * self.lift_off_mass_kg:
                raise ValueError(f"the stages weigh {total:g} kg, but lift_off_mass_kg is {self.lift_off_mass_kg:g}")
        return self


def _read(value: Any, info: ValidationInfo) -> Any:
    """Replace the name or path of a vehicle file by its content; keep a value that already is content."""
    if not isinstance(value, str):
        return value
    known = sorted(file.stem for file in _DATA.glob("*.yaml"))
    if not own_file(value):
        if value not in known:
            raise ValueError(f'there is no vehicle "{value}"; known: {", ".join(known)}, or ./FILE.yaml')
        return read_yaml(_DATA / f"{value}.yaml", VehicleModel, "a vehicle file")
    return read_yaml(Path((info.context or {}).get("folder", ".")) / value, VehicleModel, "a vehicle file")


def own_file(value: str) -> bool:
    """Return whether a parameter is the path of a file instead of a name."""
    return value.startswith(".") or value.endswith((".yaml", ".yml")) or "/" in value


Vehicle = Annotated[VehicleModel, BeforeValidator(_read)]


def load_vehicle(name: str, folder: str | Path = ".") -> VehicleModel:
    """Read and check a vehicle file.

    Raises:
      MissionError: names the position in the file and the reason.
      pydantic.ValidationError: there is no vehicle of that name.
    """

    class Holder(BaseModel):
        vehicle: Vehicle

    return Holder.model_validate({"vehicle": name}, context={"folder": str(folder)}).vehicle


def vehicle_schema() -> dict[str, Any]:
    """Return the JSON Schema of vehicle files, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **VehicleModel.model_json_schema()}


class FlyingParts(NamedTuple):
    """The parts that a stage needs to fly by itself."""

    gimbal: GimbalModel
    aerodynamics: AerodynamicsModel
    limits: LimitsModel


def flying_parts(stage: StageModel) -> FlyingParts:
    """Return the parts that a stage needs to fly by itself.

    Raises:
      ValueError: the stage has no engines, so it can only be carried.
    """
    if stage.gimbal is None or stage.aerodynamics is None or stage.limits is None:
        raise ValueError(f'stage "{stage.name}" has no engines, so it can only be carried: choose a stage with engines')
    return FlyingParts(stage.gimbal, stage.aerodynamics, stage.limits)


def build_body(vehicle: VehicleModel, stage: int = 0, carrying: bool = True) -> Body:
    """Build the tuple that the physics functions take: a stage, with all later stages as dead weight if `carrying`.

    Raises:
      ValueError: the stage has no engines.
    """
    model = vehicle.stages[stage]
    gimbal, aero, limits = flying_parts(model)
    cargo = _cargo(vehicle.stages[stage + 1 :], model.length_m) if carrying else (0.0, 0.0, 0.0, 0.0)
    cargo_mass, cargo_centre, cargo_transverse, cargo_axial = cargo
    return Body(
        name=model.name,
        length=model.length_m,
        diameter=model.diameter_m,
        dry_mass=model.dry_mass_kg,
        dry_centre=model.dry_centre_of_mass_m,
        dry_transverse=model.dry_inertia_transverse_kg_m2,
        dry_axial=model.dry_inertia_axial_kg_m2,
        propellant=model.propellant_kg,
        tanks=tuple(Tank(tank.share, tank.bottom_m, tank.radius_m, tank.density_kg_m3) for tank in model.tanks),
        mass_table=_mass_table(model.mass_table),
        engines=tuple(_engine_group(group) for group in model.engines),
        gimbal=Gimbal(gimbal.limit_deg * DEGREE, gimbal.lag_s, gimbal.height_m),
        fins=_fins(model.fins),
        rcs=_rcs(model.rcs),
        aerodynamics=Aerodynamics(
            area=aero.reference_area_m2,
            length=aero.reference_length_m,
            nose_first=_polar(aero.nose_first, bool(cargo_mass)),
            engine_first=_polar(aero.engine_first, bool(cargo_mass)),
            moment_slope=aero.moment_slope_per_deg / DEGREE,
            damping=aero.damping,
            yaw_length=aero.yaw_length_m,
            axial_damping=aero.axial_damping,
            axial_length=aero.axial_length_m or aero.yaw_length_m or aero.reference_length_m,
        ),
        limits=StructuralLimits(
            dynamic_pressure_nose_first=limits.dynamic_pressure_nose_first_pa,
            dynamic_pressure_engine_first=limits.dynamic_pressure_engine_first_pa,
            q_alpha=limits.q_alpha_pa_deg * DEGREE,
            axial_load=limits.axial_load_m_s2,
            lateral_load=limits.lateral_load_m_s2,
            body_rate=limits.body_rate_deg_s * DEGREE,
        ),
        cargo_mass=cargo_mass,
        cargo_centre=cargo_centre,
        cargo_transverse=cargo_transverse,
        cargo_axial=cargo_axial,
    )


def _mass_table(table: MassTableModel | None) -> MassTable | None:
    """Return the mass properties by propellant, if the file states them."""
    if table is None:
        return None
    return MassTable(
        Table(table.propellant_kg, table.centre_of_mass_m),
        Table(table.propellant_kg, table.inertia_transverse_kg_m2),
        Table(table.propellant_kg, table.inertia_axial_kg_m2),
    )


def _engine_group(group: EngineGroupModel) -> EngineGroup:
    """Return an engine group with its flow instead of its specific impulse."""
    return EngineGroup(
        name=group.name,
        positions=group.positions_m,
        thrust=group.thrust_vacuum_n,
        flow=group.thrust_vacuum_n / (group.specific_impulse_vacuum_s * STANDARD_GRAVITY_M_S2),
        exit_area=group.exit_area_m2,
        throttle_min=group.throttle_min,
        ignitions=group.ignitions,
        lag=group.lag_s,
    )


def _fins(fins: FinsModel | None) -> Fins | None:
    """Return the grid fins, if the stage has any."""
    if fins is None:
        return None
    return Fins(
        area=fins.area_m2,
        height=fins.height_m,
        radius=fins.radius_m,
        limit=fins.limit_deg * DEGREE,
        lag=fins.lag_s,
        normal=Table(fins.normal_mach, tuple(force / DEGREE for force in fins.normal_per_deg)),
        axial=Table(fins.axial_mach, fins.axial),
    )


def _rcs(rcs: RcsModel | None) -> Rcs | None:
    """Return the thrusters, if the stage has any."""
    if rcs is None:
        return None
    exhaust_speed = rcs.specific_impulse_s * STANDARD_GRAVITY_M_S2
    return Rcs(rcs.thrust_n, rcs.height_m, rcs.radius_m, exhaust_speed, rcs.propellant_kg)


def _polar(model: PolarModel, carrying: bool) -> Polar:
    """Return the coefficients in radians; the file may state a different centre of pressure with upper stages."""
    incidence = tuple(angle * DEGREE for angle in model.incidence_deg)

    def grid(mach: tuple[float, ...], rows: tuple[tuple[float, ...], ...]) -> Grid:
        return Grid(incidence, mach, rows)

    centre = model.centre_of_pressure_m
    if carrying and model.centre_of_pressure_carrying_m is not None:
        centre = model.centre_of_pressure_carrying_m
    across = model.centre_of_pressure_across_m
    if across is None or carrying:
        across = centre
    return Polar(grid(model.lift_mach, model.lift), grid(model.drag_mach, model.drag), centre, across)


def _cargo(stages: tuple[StageModel, ...], base: float) -> tuple[float, float, float, float]:
    """Return mass, centre above the base of the carrier, transverse and axial inertia of the stages on top."""
    parts = []
    for stage in stages:
        parts.append((stage.dry_mass_kg + stage.propellant_kg, base + stage.dry_centre_of_mass_m, stage))
        base += stage.length_m
    mass = sum(part[0] for part in parts)
    if not mass:
        return 0.0, 0.0, 0.0, 0.0
    centre = sum(weight * height for weight, height, _ in parts) / mass
    transverse = sum(
        stage.dry_inertia_transverse_kg_m2 + weight * (height - centre) ** 2 for weight, height, stage in parts
    )
    return mass, centre, transverse, sum(stage.dry_inertia_axial_kg_m2 for *_, stage in parts)
