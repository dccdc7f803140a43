"""Vehicle files: strict pydantic models of the YAML, and the plain tuples that physics takes.

`vehicle: falcon9_class` names a file of this package; `vehicle: ./mine.yaml` is read beside the
mission file. What is read becomes part of the parameters, hence of the digest of a mission.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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
Lag = Annotated[float, Field(ge=0.05)]  # an explicit step of 0.05 s follows nothing much faster
Knots = Annotated[tuple[float, ...], Field(strict=False, min_length=2, max_length=64)]
_DATA = Path(__file__).parent / "data"
_LARGEST_FILE = 1 << 20


class Strict(BaseModel):
    """No coercion, no unknown keys, immutable, finite numbers only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _increasing(name: str, knots: tuple[float, ...]) -> None:
    for at, (low, high) in enumerate(itertools.pairwise(knots)):
        if high <= low:
            raise ValueError(f"{name} must increase, but entry {at + 1} is {high:g} after {low:g}")


def _as_long(name: str, row: tuple[float, ...], over: str, knots: tuple[float, ...]) -> None:
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
        _increasing("propellant_kg", self.propellant_kg)
        for name in ("centre_of_mass_m", "inertia_transverse_kg_m2", "inertia_axial_kg_m2"):
            _as_long(name, getattr(self, name), "propellant_kg", self.propellant_kg)
        if min(*self.inertia_transverse_kg_m2, *self.inertia_axial_kg_m2) <= 0.0:
            raise ValueError("inertias must be above 0")
        return self


class EngineGroupModel(Strict):
    """Engines that are lit and throttled together; thrust and impulse of one."""

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
    """Of all engines."""

    limit_deg: Annotated[float, Field(ge=0.0, le=45.0)]
    lag_s: Lag
    height_m: NotNegative


class FinsModel(Strict):
    """Four grid fins at 90 degrees; forces of one, on its own area."""

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
            _increasing(mach, getattr(self, mach))
            _as_long(force, getattr(self, force), mach, getattr(self, mach))
        return self


class RcsModel(Strict):
    """Thrust available about one axis."""

    thrust_n: Positive
    height_m: Positive
    radius_m: Positive
    specific_impulse_s: Positive
    propellant_kg: NotNegative


class PolarModel(Strict):
    """Coefficients by incidence (rows) and Mach (columns), and where lift and drag act."""

    centre_of_pressure_m: float
    centre_of_pressure_across_m: float | None = Field(
        None, description="At 90 degrees of incidence, where the cross-flow acts; else the same at every incidence."
    )
    centre_of_pressure_carrying_m: float | None = Field(None, description="With the upper stages on top.")
    incidence_deg: Knots
    lift_mach: Knots
    lift: Annotated[tuple[Knots, ...], Field(strict=False)]
    drag_mach: Knots
    drag: Annotated[tuple[Knots, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _tables(self) -> PolarModel:
        _increasing("incidence_deg", self.incidence_deg)
        if self.incidence_deg[0] != 0.0:
            raise ValueError(f"incidence_deg must begin at 0, not {self.incidence_deg[0]:g}")
        for table in ("lift", "drag"):
            rows, mach = getattr(self, table), getattr(self, f"{table}_mach")
            _increasing(f"{table}_mach", mach)
            if len(rows) != len(self.incidence_deg):
                raise ValueError(f"{table} has {len(rows)} rows, but incidence_deg has {len(self.incidence_deg)}")
            for at, row in enumerate(rows):
                _as_long(f"{table} row {at}", row, f"{table}_mach", mach)
        if any(self.lift[0]):
            raise ValueError("lift must be 0 at incidence 0: it is odd in incidence")
        if min(min(row) for row in self.drag) < 0.0:
            raise ValueError("drag must not be negative")
        return self


class AerodynamicsModel(Strict):
    """Both ways into the wind."""

    reference_area_m2: Positive
    reference_length_m: Positive
    damping: NotNegative = 0.0
    moment_slope_per_deg: float = 0.0
    nose_first: PolarModel
    engine_first: PolarModel


class LimitsModel(Strict):
    """Structural limits, reported as margins."""

    dynamic_pressure_nose_first_pa: Positive
    dynamic_pressure_engine_first_pa: Positive
    q_alpha_pa_deg: Positive
    axial_load_m_s2: Positive
    lateral_load_m_s2: Positive
    body_rate_deg_s: Positive = 90.0


class StageModel(Strict):
    """A stage; without engines it is only carried."""

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
    """A vehicle: its stages from the lowest, in the order in which they fly."""

    name: str
    lift_off_mass_kg: Positive | None = Field(None, description="If given, the stages' masses must add up to it.")
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
    """A name or path becomes the content of the file; content stays."""
    if not isinstance(value, str):
        return value
    folder = (info.context or {}).get("folder", ".")
    own = value.startswith(".") or value.endswith((".yaml", ".yml")) or "/" in value
    path = Path(folder) / value if own else _DATA / f"{value}.yaml"
    known = ", ".join(sorted(file.stem for file in _DATA.glob("*.yaml")))
    if not path.is_file():
        raise ValueError(f'there is no vehicle "{value}" (looked for {path.name}); known: {known}, or ./FILE.yaml')
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{path.name} is larger than 1 MiB")
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name} is not YAML 1.2 in UTF-8: {error}") from error
    return content


Vehicle = Annotated[VehicleModel, BeforeValidator(_read)]


def load_vehicle(name: str, folder: str | Path = ".") -> VehicleModel:
    """Read and check a vehicle file.

    Raises:
      pydantic.ValidationError: names the field and the reason.
    """

    class Holder(BaseModel):
        vehicle: Vehicle

    return Holder.model_validate({"vehicle": name}, context={"folder": str(folder)}).vehicle


def build_body(vehicle: VehicleModel, stage: int = 0, carrying: bool = True) -> Body:
    """The tuple that physics takes: a stage, with every later stage as dead weight on top if `carrying`."""
    model = vehicle.stages[stage]
    assert model.gimbal is not None
    assert model.aerodynamics is not None
    assert model.limits is not None
    aero, limits, fins, rcs, table = model.aerodynamics, model.limits, model.fins, model.rcs, model.mass_table
    cargo = _cargo(vehicle.stages[stage + 1 :], model.length_m) if carrying else (0.0, 0.0, 0.0, 0.0)
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
        mass_table=None
        if table is None
        else MassTable(
            Table(table.propellant_kg, table.centre_of_mass_m),
            Table(table.propellant_kg, table.inertia_transverse_kg_m2),
            Table(table.propellant_kg, table.inertia_axial_kg_m2),
        ),
        engines=tuple(
            EngineGroup(
                group.name,
                group.positions_m,
                group.thrust_vacuum_n,
                group.thrust_vacuum_n / (group.specific_impulse_vacuum_s * STANDARD_GRAVITY_M_S2),
                group.exit_area_m2,
                group.throttle_min,
                group.ignitions,
                group.lag_s,
            )
            for group in model.engines
        ),
        gimbal=Gimbal(model.gimbal.limit_deg * DEGREE, model.gimbal.lag_s, model.gimbal.height_m),
        fins=None
        if fins is None
        else Fins(
            fins.area_m2,
            fins.height_m,
            fins.radius_m,
            fins.limit_deg * DEGREE,
            fins.lag_s,
            Table(fins.normal_mach, tuple(force / DEGREE for force in fins.normal_per_deg)),
            Table(fins.axial_mach, fins.axial),
        ),
        rcs=None
        if rcs is None
        else Rcs(
            rcs.thrust_n,
            rcs.height_m,
            rcs.radius_m,
            rcs.specific_impulse_s * STANDARD_GRAVITY_M_S2,
            rcs.propellant_kg,
        ),
        aerodynamics=Aerodynamics(
            aero.reference_area_m2,
            aero.reference_length_m,
            _polar(aero.nose_first, bool(cargo[0])),
            _polar(aero.engine_first, bool(cargo[0])),
            aero.moment_slope_per_deg / DEGREE,
            aero.damping,
        ),
        limits=StructuralLimits(
            limits.dynamic_pressure_nose_first_pa,
            limits.dynamic_pressure_engine_first_pa,
            limits.q_alpha_pa_deg * DEGREE,
            limits.axial_load_m_s2,
            limits.lateral_load_m_s2,
            limits.body_rate_deg_s * DEGREE,
        ),
        cargo_mass=cargo[0],
        cargo_centre=cargo[1],
        cargo_transverse=cargo[2],
        cargo_axial=cargo[3],
    )


def _polar(model: PolarModel, carrying: bool) -> Polar:
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
    """Mass, centre above the carrier's base, transverse and axial inertia of the stages on top."""
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
