"""The compiled programs of one phase in training; each is one `shard_map` over the devices of the mesh.

Every device steps its share of the vehicles, if they can be shared equally. Everything else is replicated: each device
holds the whole replay, and a learner splits its minibatches itself. Keys are folded from counters in the state, so chunk
boundaries do not affect the result.

Shapes: E vehicles, V those of this device, U updates per cycle, O observation, A action, L float leaves of a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from mission.flight.batches import compile_flight, name_key, prepare_flight, program_identity
from mission.flight.fly import guide_controller
from mission.learner import Learner
from mission.machine.devices import AXIS, REPLICATED, SPLIT, device_share, gather_rows, mesh
from mission.machine.programs import Program, in_background
from mission.missionfile.phases import TrainedPhase
from mission.training.imitation import Imitator, Work
from mission.training.restart import snapshot_steps, wide_vehicles
from mission.training.step import EnvBatch, keep_snapshots, start_waiting, step_envs, waiting_envs


class TrainState(NamedTuple):
    """The state of a training run on the devices; `agent` and `replay` belong to the learner."""

    agent: Any
    replay: Any
    envs: EnvBatch
    iteration: Array  # int32 [], steps of every vehicle so far


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """The compiled functions of one phase, and their learner.

    `imitate` takes (agent, work, bank, key, share float32 [], round int32 []) and makes a round of the imitation; it
    returns agent, work, losses [updates] and what `Imitator.round` counts. `no_labels` returns the work before the
    first round. Both are None without imitation.

    `chunk` takes (state, bank, key, cycles int32 [], filling bool []) and runs so many cycles; while filling, it makes no
    updates. It returns the state, and for each of `chunk_cycles` cycles the episode statistics, metrics and samples for
    histograms, of which the first `cycles` count.
    """

    phase: TrainedPhase
    learner: Learner
    init: Callable[[Array], TrainState]
    warm_up: Program
    chunk: Program
    flight: Program
    imitate: Program | None
    no_labels: Callable[[], Work] | None

    def prepare(self, state: TrainState, bank: Any, key: Array) -> None:
        """Start compiling or reading all programs in parallel; a call of a program waits until it is ready."""
        state, bank, key = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), (state, bank, key)
        )
        calls = [partial(self.chunk.prepare, state, bank, key, np.int32(0), np.bool_(False))]
        if self.learner.warm_up_steps or self.learner.prepares:
            calls.append(partial(self.warm_up.prepare, state, key))
        calls.append(partial(prepare_flight, self.flight, self.phase, self.learner.policy(state.agent)))
        in_background(calls)


def compile_programs(phase: TrainedPhase) -> Programs:
    """Return all programs of a phase."""
    build = _Builder(phase, phase.build_learner())
    split = phase.learner.vehicles % mesh().size == 0
    parts: list[Any] = [REPLICATED, REPLICATED, SPLIT if split else REPLICATED, REPLICATED]
    state = TrainState(*parts)

    def mapped(function: Callable[..., Any], takes: tuple[Any, ...], gives: Any) -> Callable[..., Any]:
        return jax.shard_map(function, mesh=mesh(), in_specs=takes, out_specs=gives, check_vma=False)

    def update(function: Callable[..., Any], name: str, others: int) -> Program:
        changes = mapped(function, (state, *[REPLICATED] * others), (state, REPLICATED))
        identity, devices = program_identity(phase, name), list(mesh().devices.flat)
        return Program(changes, identity, phase=phase.name, updates=True, devices=devices)

    return Programs(
        phase=phase,
        learner=build.learner,
        init=jax.jit(mapped(build.init, (REPLICATED,), state)),
        warm_up=update(build.warm_up, "warm_up", 1),
        chunk=update(build.chunk, "chunk", 4),
        flight=compile_flight(phase),
        **_imitation(phase, build.learner, split, mapped),
    )


def _imitation(phase: TrainedPhase, learner: Learner, split: bool, mapped: Callable[..., Any]) -> dict[str, Any]:
    """Return the programs of the imitation; None each without one."""
    settings, whole = phase.learner.imitation, REPLICATED
    if settings is None:
        return {"imitate": None, "no_labels": None}
    imitator = Imitator(phase, learner, settings)
    parts: list[Any] = [SPLIT if split else whole, whole, whole]
    work = Work(*parts)
    changes = mapped(imitator.round, (whole, work, *[whole] * 4), (whole, work, whole, whole))
    devices = list(mesh().devices.flat)
    program = Program(changes, program_identity(phase, "imitate"), phase=phase.name, updates=True, devices=devices)
    return {"imitate": program, "no_labels": jax.jit(mapped(imitator.begin, (), work))}


@dataclasses.dataclass(frozen=True, eq=False)
class _Builder:
    """The functions to compile, as methods that share the phase and its learner."""

    phase: TrainedPhase
    learner: Learner

    @property
    def snapshot_steps(self) -> int:
        """Return how many control steps before the end of an episode a snapshot may be; 0: none are kept."""
        return snapshot_steps(self.phase, self.learner.horizon)

    def init(self, key: Array) -> TrainState:
        """Return the state before the first step: every vehicle waits for its start."""
        envs = device_share(waiting_envs(self.phase, self.phase.learner.vehicles, self.snapshot_steps))
        return TrainState(self.learner.init(key), self.learner.empty_replay(), envs, jnp.int32(0))

    def warm_up(self, state: TrainState, key: Array) -> tuple[TrainState, Array]:
        """Run the learner's warm-up; also return its losses."""
        agent, replay, losses = self.learner.warm_up(state.agent, state.replay, key)
        return state._replace(agent=agent, replay=replay), losses

    def chunk(self, state: TrainState, bank: Any, key: Array, cycles: Array, filling: Array) -> tuple[TrainState, Any]:
        """Run update cycles; also return episode statistics, metrics and samples for histograms (`Programs`)."""
        collect_key, update_key, sample_key = jax.random.split(key, 3)
        iterations, updates = self.phase.learner.update_cycle

        def update(state: TrainState) -> tuple[TrainState, Any]:
            snapshots = state.envs.snapshots
            visited = (snapshots.visited, snapshots.valid) if self.learner.horizon else ()
            agent, replay, metrics, samples = self.learner.update(state.agent, state.replay, visited, update_key)
            return state._replace(agent=agent, replay=replay), (metrics, samples)

        def cycle(state: TrainState) -> tuple[TrainState, Any]:
            collect = partial(self._collect, bank, collect_key, filling)
            state, (stats, action, reward) = lax.scan(lambda s, _: collect(s), state, None, length=iterations)
            state, (metrics, samples) = _repeat(update, state, updates, jnp.where(filling, 0, updates))
            last = {"Action": action[-1], "Reward": reward[-1]} | {name: rows[-1] for name, rows in samples.items()}
            return state, (stats, metrics, last)

        state, (stats, metrics, samples) = _repeat(cycle, state, self.phase.learner.chunk_cycles, cycles)
        samples = {name: rows[cycles - 1].ravel() for name, rows in samples.items()}
        samples |= self.learner.replay_samples(state.replay, jax.random.fold_in(sample_key, state.iteration))
        return state, (self._over_devices(stats), metrics, samples)

    def _collect(self, bank: Any, key: Array, filling: Array, state: TrainState) -> tuple[TrainState, Any]:
        """Advance every vehicle by one control step and remember it."""
        vehicles = self.phase.learner.vehicles
        iteration_key = jax.random.fold_in(key, state.iteration)
        act, noise, start, step = device_share(jax.random.split(iteration_key, (4, vehicles)), axis=1)
        wide = wide_vehicles(self.phase)
        envs = start_waiting(self.phase, bank, state.envs, start, None if wide is None else device_share(wide))
        obs = jax.vmap(self.phase.environment.observe)(envs.state)
        action = lax.cond(filling, self._first_action, self._policy_action, state.agent, envs.state, obs, act[0])
        action = self.learner.explore(action, noise[0])
        if self.phase.learner.episode_noise:
            action = self._hold_events(state, filling, envs, obs, action, key)
        before = envs
        envs, transition, end, terms, finite = step_envs(self.phase, before, obs, action, step)
        if before.snapshots:
            arguments = before.snapshots, before, end.ended, self.snapshot_steps, jax.random.fold_in(start[0], 1)
            envs = envs._replace(snapshots=keep_snapshots(*arguments))
        stats = {
            "ended": end.ended.sum(),
            "success": end.success.sum(),
            "return": jnp.where(end.ended, end.returns, 0.0).sum(),
            "length": jnp.where(end.ended, end.steps, 0).sum(),
            "terms": {name: jnp.asarray(term, jnp.float32).sum() / vehicles for name, term in terms.items()},
            "finite": finite,
            "cause": jnp.stack([end.cause.min(), end.cause.max()]),
        }
        everything = gather_rows(transition, vehicles)
        replay = self.learner.remember(state.replay, everything)
        after = TrainState(state.agent, replay, envs, state.iteration + 1)
        return after, (stats, everything.action, everything.reward)

    def _hold_events(
        self, state: TrainState, filling: Array, envs: EnvBatch, obs: Array, action: Array, key: Array
    ) -> Array:
        """Return actions [V, A] in which those that are times to an event explore with the key of their episode.

        The key is folded from the vehicle and the iteration in which its episode began, so nothing has to be stored.
        """
        names = self.phase.environment.action_names
        held = np.array([name in self.phase.environment.event_actions for name in names])
        numbers = device_share(jnp.arange(self.phase.learner.vehicles))
        begun, key = state.iteration - envs.steps, name_key(key, "episodes")

        def one(number: Array, begun: Array, states: Any, obs: Array) -> Array:
            act, noise = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, begun), number))
            alone = jax.tree.map(lambda leaf: leaf[None], (states, obs))
            chosen = lax.cond(filling, self._first_action, self._policy_action, state.agent, *alone, act)
            return self.learner.explore(chosen, noise)[0]

        return jnp.where(held[None], jax.vmap(one)(numbers, begun, envs.state, obs), action)

    def _over_devices(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Return the statistics of all vehicles from those of this device's."""
        if device_share(jnp.zeros(self.phase.learner.vehicles)).size == self.phase.learner.vehicles:
            return stats
        finite, causes = lax.pmin(stats["finite"].astype(jnp.int32), AXIS) > 0, stats["cause"]
        least, largest = lax.pmin(causes[..., 0], AXIS), lax.pmax(causes[..., 1], AXIS)
        sums = {name: lax.psum(values, AXIS) for name, values in stats.items() if name not in ("finite", "cause")}
        return sums | {"finite": finite, "cause": jnp.stack([least, largest], axis=-1)}

    def _policy_action(self, agent: Any, states: Any, obs: Array, key: Array) -> Array:
        return self.learner.act(agent, obs, key)

    def _first_action(self, agent: Any, states: Any, obs: Array, key: Array) -> Array:
        if self.phase.learner.fill.policy == "agent":
            return self.learner.act(agent, obs, key)
        if self.phase.learner.fill.policy == "guide":
            return guide_controller(self.phase)(None, states, obs)
        actions = len(self.phase.environment.action_names)
        return jax.random.uniform(key, (obs.shape[0], actions), minval=-1.0, maxval=1.0)


def _repeat(function: Callable[[Any], tuple[Any, Any]], state: Any, most: int, times: Array) -> tuple[Any, Any]:
    """Call a function several times, like `lax.scan`, but only the first `times` of `most`; the other results are 0."""
    shapes = jax.eval_shape(lambda state: function(state)[1], state)
    empty = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), shapes)

    def body(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, result = function(carry[0])
        return state, jax.tree.map(lambda rows, row: rows.at[number].set(row), carry[1], result)

    return lax.fori_loop(0, times, body, (state, empty))
