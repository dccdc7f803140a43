"""Restarts: noise that a phase applies itself, and wide days for a share of the training vehicles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import CART, write_mission
from pydantic import BaseModel

from mission import PhaseSpec, load_mission, resolve_mission
from mission.errors import InputError, PluginError
from mission.flight.batches import program_identity
from mission.missionfile.changes import configuration_change
from mission.missionfile.models import Restart
from mission.missionfile.phases import PhaseConfiguration, TrainedPhase
from mission.missionfile.wide import merge_params
from mission.phase import PluginOrigin
from mission.testing import check_phase, make_phase
from mission.training.bank import TerminalBank, fit_density
from mission.training.loop import begin, run_chunk
from mission.training.programs import compile_programs
from mission.training.restart import draw_start, fresh_state, snapshot_steps, wide_vehicles
from mission.training.step import revisited, start_waiting, waiting_envs

# A cart whose start spreads by a parameter, and whose hand-over carries a mass that is drawn with it.
WIDE_CART = (
    CART.replace(
        "    seconds: float = Field(3.0, gt=0)\n",
        "    seconds: float = Field(3.0, gt=0)\n    spread: Spread = Spread()\n",
    )
    .replace(
        "class Params(BaseModel):",
        "class Spread(BaseModel):\n"
        "    model_config = ConfigDict(extra='forbid', strict=True, frozen=True)\n"
        "    start_m: float = Field(1.0, gt=0)\n    mass: float = Field(0.1, ge=0)\n\nclass Params(BaseModel):",
    )
    .replace(
        "    velocity_m_s: jax.Array\n\nclass State", "    velocity_m_s: jax.Array\n    mass: jax.Array\n\nclass State"
    )
    .replace(
        "        return Cart(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(()))\n",
        "        x, m = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)\n"
        "        return Cart(self.params.spread.start_m * x, jnp.zeros(()), 1.0 + self.params.spread.mass * m)\n"
        "    def redraw(self, key, handoff):\n"
        "        m = jax.random.uniform(key, minval=-1.0, maxval=1.0)\n"
        "        return handoff._replace(mass=1.0 + self.params.spread.mass * m)\n",
    )
    .replace("+ 0.1 * action[0]\n", "+ 0.1 * action[0] / state.cart.mass\n")
    .replace(
        "return State(Cart(state.cart.position_m + 0.1 * velocity, velocity),",
        "return State(Cart(state.cart.position_m + 0.1 * velocity, velocity, state.cart.mass),",
    )
)
WIDE = """\
name: trial
phases:
  - name: only
    plugin: ./cart.py
    training_params: {spread: {start_m: 50.0, mass: 0.5}}
    training_share: 0.25
    bank: {flights: 100, minimum: 4}
    evaluation: {flights: 20}
    budget: {env_steps: 1200}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mission(tmp_path_factory.mktemp("wide"), WIDE, WIDE_CART).parent


def resolved(folder: Path, *overrides: str) -> TrainedPhase:
    (phase,) = resolve_mission(load_mission(folder / "mission.yaml", list(overrides)), allow_local_plugins=True)
    assert isinstance(phase, TrainedPhase)
    return phase


# Wide days


def test_a_share_of_the_vehicles_starts_on_wide_days(folder: Path) -> None:
    phase = resolved(folder)
    wide = wide_vehicles(phase)
    assert wide is not None
    np.testing.assert_array_equal(wide, np.arange(16) < 4)
    fresh = jax.jit(lambda keys: start_waiting(phase, None, waiting_envs(phase, 16), keys, wide))
    x, mass = [], []
    for seed in range(40):
        envs = fresh(jax.random.split(jax.random.key(seed), 16))
        assert (envs.steps == 0).all()
        x.append(np.abs(envs.state.cart.position_m))
        mass.append(np.abs(np.asarray(envs.state.cart.mass) - 1.0))
    x, mass = np.stack(x), np.stack(mass)
    assert (x[:, :4].max(), x[:, 4:].max()) == pytest.approx((50.0, 1.0), rel=0.1)
    assert (mass[:, :4].max(), mass[:, 4:].max()) == pytest.approx((0.5, 0.1), rel=0.1)


def test_rows_of_the_bank_get_new_dispersions_on_wide_days_only(folder: Path) -> None:
    phase = resolved(folder, "phases.only.restart={stored: 0.8, noisy: 0.0, nominal: 0.2}")
    cart = type(phase.environment.start(jax.random.key(0)))
    rows = cart(jnp.array([7.0, 8.0]), jnp.array([0.5, 0.5]), jnp.array([1.02, 0.98]))
    bank = TerminalBank(rows, rows, *map(jnp.asarray, fit_density(jax.tree.map(np.asarray, rows))))
    keys = jax.random.split(jax.random.key(0), 4000)
    stored = {}
    for wide in (False, True):
        starts = jax.jit(jax.vmap(lambda key, wide=wide: draw_start(phase, bank, key, wide)))(keys)
        stored[wide] = np.asarray(starts.velocity_m_s) == 0.5
        assert abs(stored[wide].mean() - 0.8) < 0.03
        assert set(np.asarray(starts.position_m)[stored[wide]]) == {7.0, 8.0}
        masses = np.asarray(starts.mass)[stored[wide]]
        if wide:
            assert len(np.unique(masses)) > 1000
            assert (masses.min(), masses.max()) == pytest.approx((0.5, 1.5), abs=0.01)
        else:
            assert set(masses.tolist()) == set(np.asarray(rows.mass).tolist())


def test_without_training_params_the_program_is_the_same(folder: Path) -> None:
    """The share alone changes neither the compiled program nor the configuration."""
    off = "phases.only.training_params={}"
    plain = [resolved(folder, off), resolved(folder, off, "phases.only.training_share=1.0")]
    assert plain[0].wide is None
    assert wide_vehicles(plain[0]) is None
    assert plain[0].configuration() == plain[1].configuration()
    envs = waiting_envs(plain[0], 16)
    keys = jax.random.split(jax.random.key(0), 16)
    texts = [str(jax.make_jaxpr(lambda e, k, p=p: start_waiting(p, None, e, k))(envs, keys)) for p in plain]
    assert texts[0] == texts[1]
    assert texts[0].count("while") == 1


def test_both_kinds_train_in_one_program(folder: Path) -> None:
    """Episodes of wide vehicles end as the others', and start again on wide days."""
    phase = resolved(folder)
    programs = compile_programs(phase)
    state = programs.init(jax.random.key(0))
    for _ in range(2):
        state, (stats, _, _) = programs.chunk(state, None, jax.random.key(1), np.int32(16), np.bool_(True))
    mass = np.abs(np.asarray(state.envs.state.cart.mass) - 1.0)
    assert np.asarray(stats["ended"]).sum() >= 16
    assert mass[:4].max() > 0.1
    assert mass[4:].max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ("{seconds: 2.0}", ("outcome",)),
        ("{tolerance_m: 1.0, spread: {mass: 0.2}}", ("outcome",)),
    ],
)
def test_parameters_that_change_more_than_draws_are_refused(folder: Path, changes: str, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        resolved(folder, f"phases.only.training_params={changes}")
    error = caught.value
    assert 'phases[0] "only": training_params' in error.where
    assert "start, redraw and enter" in error.expected
    for name in names:
        assert name in error.found
    assert "observe" not in error.found
    assert error.exit_code == 2


def test_parameters_that_the_plugin_does_not_know_or_accept_are_refused_where_they_are(folder: Path) -> None:
    for changes, reason in (("{sprea: {mass: 0.2}}", "spread"), ("{spread: {mass: -1.0}}", "mass")):
        with pytest.raises(InputError, match=f"training_params(.|\\n)*{reason}"):
            resolved(folder, f"phases.only.training_params={changes}")


class Everything(BaseModel):
    """A number for each part of a phase."""

    step: float = 1.0
    observe: float = 1.0
    outcome: float = 1.0
    leave: float = 1.0
    telemetry: float = 1.0
    guide: float = 1.0
    reward: float = 1.0
    limits: float = 1.0
    max_steps: int = 9
    start: float = 1.0
    enter: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(probes.DriftEnvironment):
    """A drift whose parts each read one parameter."""

    params: Everything = dataclasses.field(default_factory=Everything)

    def start(self, key: Any) -> Any:
        return super().start(key)._replace(velocity=self.params.start * jnp.ones(2))

    def enter(self, key: Any, handoff: Any) -> Any:
        return handoff._replace(velocity=self.params.enter * handoff.velocity)

    def step(self, key: Any, state: Any, action: Any) -> Any:
        return super().step(key, state, self.params.step * action)

    def observe(self, state: Any) -> Any:
        return self.params.observe * super().observe(state)

    def outcome(self, state: Any) -> Any:
        return super().outcome(state._replace(age=(self.params.outcome * state.age).astype(jnp.int32)))

    def leave(self, state: Any) -> Any:
        return state._replace(velocity=self.params.leave * state.velocity)

    def telemetry(self, state: Any) -> Any:
        return {"x_m": self.params.telemetry * state.position[0]}

    def guide(self, state: Any) -> Any:
        return self.params.guide * super().guide(state)


SCALED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_restarts import scaled_spec
from mission import hookimpl

@hookimpl
def mission_phase():
    return scaled_spec()
"""


def scaled_spec() -> PhaseSpec:
    from mission import Limit

    return PhaseSpec(
        Everything,
        lambda params: Scaled(params=params, max_steps=params.max_steps),
        lambda params: lambda state, action, after, outcome: {"x": params.reward * after.position[0]},
        limits=lambda params: (Limit("x_m", maximum=params.limits),),
        sac=probes.probe_sac(),
    )


def test_every_part_but_the_draws_is_compared(tmp_path: Path) -> None:
    (tmp_path / "scaled.py").write_text(SCALED)
    path = tmp_path / "mission.yaml"
    path.write_text("name: trial\nphases:\n  - {name: only, plugin: ./scaled.py}\n")

    def resolve(name: str) -> None:
        value = "8" if name == "max_steps" else "2.0"
        mission = load_mission(path, [f"phases.only.training_params={{{name}: {value}}}"])
        resolve_mission(mission, allow_local_plugins=True)

    for name in ("start", "enter"):
        resolve(name)
    for name in sorted({*Everything.model_fields} - {"start", "enter"}):
        with pytest.raises(InputError, match=f"they change {name} of"):
            resolve(name)


def test_training_params_are_part_of_the_configuration(folder: Path) -> None:
    off, on = resolved(folder, "phases.only.training_params={}"), resolved(folder)
    other = resolved(folder, "phases.only.training_share=0.5")
    assert configuration_change([on.configuration()], [on]) == ""
    assert "training_params" in configuration_change([off.configuration()], [on])
    assert "training_params" in configuration_change([on.configuration()], [off])
    assert configuration_change([on.configuration()], [other]).endswith("training_share was 0.25, is 0.5")
    stored = off.configuration().model_dump(exclude={"training_params", "training_share"})
    assert configuration_change([PhaseConfiguration(**stored)], [off]) == ""
    # programs on disk are told apart too
    known = PluginOrigin("cart", "some", "1", "0" * 64)
    identities = {program_identity(dataclasses.replace(p, origin=known), "chunk") for p in (off, on, other)}
    assert len(identities) == 3


class Inner(BaseModel):
    x: float = 0.0
    y: float = 0.0


class Outer(BaseModel):
    a: Inner = Inner(x=1.0)
    b: float = 0.0
    c: dict[str, float] = {"p": 1.0, "q": 2.0}


def test_training_params_are_merged_over_given_ones_and_over_defaults() -> None:
    def merged(given: dict[str, Any], changes: dict[str, Any]) -> Outer:
        return Outer.model_validate(merge_params(Outer.model_validate(given), given, changes))

    assert merged({}, {"a": {"y": 2.0}}).a == Inner(x=1.0, y=2.0)
    assert merged({"a": {"x": 3.0}, "b": 4.0}, {"a": {"y": 2.0}}) == Outer(a=Inner(x=3.0, y=2.0), b=4.0)
    assert merged({"c": {"p": 5.0}}, {"c": {"q": 6.0}}).c == {"p": 5.0, "q": 6.0}
    assert merged({"b": 1.0}, {"b": 2.0}).b == 2.0


# Noise that a phase applies itself


class Turned(probes.DriftEnvironment):
    """A drift whose positions are at most 1; noise leaves counters alone anyway."""

    def perturb(self, handoff: Any, noise: Any) -> Any:
        return handoff._replace(position=jnp.clip(handoff.position + noise.position, -1.0, 1.0))


def test_noisy_restarts_are_those_that_the_phase_makes() -> None:
    phase = make_phase(PhaseSpec(probes.Nothing, lambda params: Turned()))
    phase = dataclasses.replace(
        phase, entry=phase.entry.model_copy(update={"restart": Restart(stored=0.0, noisy=1.0, nominal=0.0)})
    )
    rows = jax.vmap(phase.environment.start)(jax.random.split(jax.random.key(0), 300))
    bank = TerminalBank(rows, rows, *map(jnp.asarray, fit_density(jax.tree.map(np.asarray, rows))))
    starts = jax.jit(jax.vmap(lambda key: draw_start(phase, bank, key)))(jax.random.split(jax.random.key(1), 2000))
    position = np.asarray(starts.position)
    assert np.abs(position).max() == 1.0
    assert (np.abs(position) == 1.0).mean() > 0.05
    assert (starts.age == 0).all()


class Root(probes.DriftEnvironment):
    """A drift that enters through a square root, which noise may take out of its range."""

    def start(self, key: Any) -> Any:
        drift = super().start(key)
        return drift._replace(position=jnp.abs(drift.position))

    def enter(self, key: Any, handoff: Any) -> Any:
        return handoff._replace(position=jnp.sqrt(handoff.position))

    def leave(self, state: Any) -> Any:
        return state.position  # another tree, so that it is not entered again


class Rooted(Root):
    """The same, with noise that stays in the range."""

    def perturb(self, handoff: Any, noise: Any) -> Any:
        return handoff._replace(position=jnp.maximum(handoff.position + noise.position, 0.0))


class Lost(Rooted):
    """Its new dispersions are infinite."""

    def redraw(self, key: Any, handoff: Any) -> Any:
        return handoff._replace(velocity=jnp.full(2, jnp.inf))


class Shrunk(probes.DriftEnvironment):
    """Its noise drops a part of the hand-over."""

    def perturb(self, handoff: Any, noise: Any) -> Any:
        return handoff.position


def test_check_phase_finds_restarts_that_are_not_finite() -> None:
    def check(kind: type[probes.DriftEnvironment]) -> None:
        check_phase(PhaseSpec(probes.Nothing, lambda params: kind(until=3)), steps=3)

    check(Rooted)
    with pytest.raises(PluginError, match=r"restart after perturb(.|\n)*state.position"):
        check(Root)
    with pytest.raises(PluginError, match=r"restart after redraw(.|\n)*state.velocity"):
        check(Lost)
    with pytest.raises(PluginError, match="perturb to return a hand-over like start's"):
        check(Shrunk)


def test_a_share_of_the_vehicles_starts_where_others_were_near_their_end() -> None:
    """The snapshots of vehicles 0 to 31 count, of which every second one is valid."""
    share, vehicles = 0.4, 4000
    restart = Restart(visited=share, visited_steps=4)
    phase = make_phase(probes.drift(probes.probe_sac()))
    phase = dataclasses.replace(phase, entry=phase.entry.model_copy(update={"restart": restart}))
    assert isinstance(phase, TrainedPhase)
    envs = waiting_envs(phase, vehicles, snapshot_steps(phase, 0))
    labels = 1000 + jnp.arange(vehicles, dtype=jnp.int32)
    visited = envs.snapshots.visited._replace(label=labels)
    envs = envs._replace(snapshots=envs.snapshots._replace(visited=visited, valid=jnp.arange(vehicles) % 2 == 0))
    keys = jax.random.split(jax.random.key(0), vehicles)
    states = jax.vmap(lambda key: fresh_state(phase, None, key))(keys)
    found = np.asarray(revisited(envs.snapshots, states, keys, share, jnp.arange(vehicles) < 32).label)
    taken = found >= 1000
    assert taken.mean() == pytest.approx(share, abs=0.03)
    assert set(found[taken]) == set(range(1000, 1032, 2))
    started = np.asarray(start_waiting(phase, None, envs, keys).state.label)
    assert (started >= 1000).mean() == pytest.approx(share, abs=0.03)
    assert len(set(started[started >= 1000])) > 0.3 * share * vehicles


def test_without_a_visited_state_every_vehicle_starts_afresh() -> None:
    restart = Restart(visited=1.0)
    phase = make_phase(probes.drift(probes.probe_sac()))
    phase = dataclasses.replace(phase, entry=phase.entry.model_copy(update={"restart": restart}))
    keys = jax.random.split(jax.random.key(0), 64)
    envs = start_waiting(phase, None, waiting_envs(phase, 64, 50), keys)
    np.testing.assert_array_equal(envs.state.age, 0)
    assert np.asarray(envs.state.position).std() > 0.3


def test_training_restarts_near_the_end_of_its_own_episodes() -> None:
    """Episodes of 30 steps; revisited ones begin at most 4 steps before their end."""
    phase = make_phase(probes.drift(probes.probe_sac(vehicles=64), until=30))
    entry = phase.entry.model_copy(update={"restart": Restart(visited=0.5, visited_steps=4)})
    run = begin(dataclasses.replace(phase, entry=entry), None, jax.random.key(0))
    lengths = []
    for _ in range(8):
        stats, _, _ = run_chunk(run, "chunk", run.phase.learner.chunk_cycles, False)
        lengths.append((stats["length"].sum(), stats["ended"].sum()))
    length, ended = np.sum(lengths[3:], axis=0)
    # n whole episodes of 30 steps for each one of about 2 (1 to 4)
    assert 10.0 < length / ended < 22.0
