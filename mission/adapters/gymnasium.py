"""Phases as Gymnasium environments: `Env` flies one vehicle, `VectorEnv` many in one compiled program per step.

Shapes: V vehicles, O observation, A action, W numbers of a row, L float leaves of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mission.adapters.vehicles import PhaseEnv, advance, begin, make_env
from mission.errors import InputError
from mission.machine.devices import mesh
from mission.machine.extras import import_extra
from mission.missionfile.phases import Phase
from mission.training.checks import check_causes, check_states
from mission.training.restart import wide_vehicles

_WHERE = "mission.adapters.gymnasium"
_TERMS = "terms/"
_LEAST_SHARED = 64  # vehicles; for fewer, a second program per step costs more than it saves

gymnasium = import_extra("gymnasium", "mission-engine[gymnasium]", _WHERE)
vector = import_extra("gymnasium.vector", "mission-engine[gymnasium]", _WHERE)


class _Rows:
    """Named arrays [V] or [V, n] as the rows of one array, since each array that a program returns costs time."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Any, int | None]] = {}  # dtype and n, noted when the program is traced

    def pack(self, fields: Mapping[str, Array]) -> Array:
        """Return float32 [W, V]; whole numbers must be below 2^24."""
        self._rows = {k: (v.dtype, v.shape[1] if v.ndim == 2 else None) for k, v in fields.items()}
        return jnp.concatenate([_across(jnp.float32(v)) for v in fields.values()])

    def unpack(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the fields of a packed array."""
        fields, at = {}, 0
        for name, (dtype, width) in self._rows.items():
            part = rows[at] if width is None else rows[at : at + width].T
            fields[name] = np.array(part, dtype, order="C")
            at += 1 if width is None else width
        return fields


class _State:
    """A tree with leaves [V, ...] as one array per dtype: a state of a hundred leaves costs more to pass than to advance."""

    def __init__(self) -> None:
        self._leaves: list[Any] = []
        self._tree: Any = None

    def pack(self, tree: Any) -> dict[str, Any]:
        """Return dtype -> [n, V], in which each number of all vehicles is contiguous; typed keys stay as they are."""
        leaves, self._tree = jax.tree.flatten(tree)
        self._leaves = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        groups: dict[str, list[Array]] = {}
        for leaf in leaves:
            keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            groups.setdefault(str(leaf.dtype), []).append(leaf if keys else _across(leaf))
        return {name: part if name.startswith("key") else jnp.concatenate(part) for name, part in groups.items()}

    def unpack(self, groups: dict[str, Any]) -> Any:
        """Return the tree of packed arrays."""
        at, leaves = dict.fromkeys(groups, 0), []
        for like in self._leaves:
            name, first = str(like.dtype), at[str(like.dtype)]
            if name.startswith("key"):
                leaves.append(groups[name][first])
                at[name] += 1
            else:
                leaves.append(groups[name][first : first + like.size].T.reshape(-1, *like.shape))
                at[name] += like.size
        return jax.tree.unflatten(self._tree, leaves)


def _across(leaf: Array) -> Array:
    """Return an array [V, ...] as [n, V]."""
    return leaf.reshape(leaf.shape[0], -1).T


class _Vehicles:
    """V vehicles of a phase, in equal parts on the devices of the engine, behind two compiled programs.

    Keys and vehicles are the same for any number of parts. The host starts a step of each part and then waits for all.
    """

    def __init__(self, env: PhaseEnv, guide: bool) -> None:
        self.env, self._guide, self._count = env, guide, 0
        devices = list(mesh().devices.flat)
        shared = env.vehicles >= _LEAST_SHARED and env.vehicles % len(devices) == 0
        self._devices = devices if shared else devices[:1]
        self._size = env.vehicles // len(self._devices)
        self._banks = [jax.device_put(env.bank, device) for device in self._devices]
        self._started, self._stepped, self._packing = _Rows(), _Rows(), _State()
        self._start, self._step = jax.jit(self._begin), jax.jit(self._advance, donate_argnums=0)
        self._fixed: list[Any] = []  # what every step of a part takes as it is: bank, key, number of its first vehicle
        self._states: list[Any] = []  # packed states, and the number of the step

    def start(self, seed: int) -> dict[str, np.ndarray]:
        """Start all vehicles; return `obs` [V, O], and with a guide its actions `guide` [V, A]."""
        self._count = 0
        self._fixed = [
            (bank, *jax.device_put((jax.random.key(seed), np.int32(k * self._size)), device))
            for k, (bank, device) in enumerate(zip(self._banks, self._devices, strict=True))
        ]
        results = [self._start(*fixed) for fixed in self._fixed]
        self._states = [state for state, _ in results]
        return self._started.unpack(np.concatenate([rows for _, rows in results], axis=1))

    def step(self, action: np.ndarray) -> dict[str, np.ndarray]:
        """Advance all vehicles by actions [V, A].

        Returns:
          The fields of `EnvStep` by name, `terms/NAME` for each term, and with a guide its next actions `guide` [V, A].

        Raises:
          NonFiniteError, PluginError: the phase has an error with which training would stop.
        """
        phase, before = self.env.phase, self._count * self.env.vehicles
        self._count += 1
        results = []
        for k, (state, fixed) in enumerate(zip(self._states, self._fixed, strict=True)):
            results.append(self._step(state, *fixed, action[k * self._size : (k + 1) * self._size]))
        self._states = [state for state, _, _ in results]
        rows = np.concatenate([rows for _, rows, _ in results], axis=1)
        check_states(phase, np.stack([finite for _, _, finite in results]), before)
        result = self._stepped.unpack(rows)
        causes = result["cause"][result["terminated"]]
        if causes.size:
            check_causes(phase, np.array([[causes.min(), causes.max()]]), before)
        return result

    def _begin(self, bank: Any, key: Array, first: Array) -> Any:
        phase = self.env.phase
        keys, wide = self._part((jax.random.split(key, self.env.vehicles), wide_vehicles(phase)), first)
        state = begin(phase, bank, keys, wide)
        rows = self._started.pack({"obs": self.env.observe(state)} | self._guided(state))
        return (self._packing.pack(state), jnp.uint32(1)), rows

    def _advance(self, counted: Any, bank: Any, key: Array, first: Array, action: Array) -> Any:
        (packed, count), phase = counted, self.env.phase
        restart, move = jax.random.split(jax.random.fold_in(key, count), (2, self.env.vehicles))
        rows = self._part((restart, move, wide_vehicles(phase)), first)
        state, result = advance(phase, bank, self._packing.unpack(packed), action, *rows)
        fields = result._asdict()
        terms, finite = fields.pop("terms"), fields.pop("finite")
        fields |= {f"{_TERMS}{name}": term for name, term in terms.items()} | self._guided(state)
        return (self._packing.pack(state), count + 1), self._stepped.pack(fields), finite

    def _part(self, rows: Any, first: Array) -> Any:
        """Return the rows of one part of those of all vehicles."""
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, self._size), rows)

    def _guided(self, state: Any) -> dict[str, Array]:
        return {"guide": self.env.guide(state)} if self._guide else {}


class _Spaces:
    """The spaces of a phase and the checks of inputs, which both kinds of environments share."""

    def __init__(self, env: PhaseEnv) -> None:
        size, actions, box = len(env.observation_names), len(env.action_names), gymnasium.spaces.Box
        self.observation = box(-np.inf, np.inf, (size,), np.float32)
        self.action = box(-1.0, 1.0, (actions,), np.float32)
        self.metadata = {"render_modes": [], "render_fps": round(1.0 / env.phase.environment.control_period_s, 6)}


def _checked(action: Any, shape: tuple[int, ...], begun: bool, name: str) -> np.ndarray:
    """Return actions as float32 [...], or raise an error that says what is wrong with them."""
    where = f'{_WHERE}: phase "{name}"'
    if not begun:
        raise InputError(where, expected="reset() before step()", found="none since the start or the end of an episode",
                         remedy="call reset()")  # fmt: skip
    rows = np.asarray(action, np.float32)
    if rows.shape != shape or not np.isfinite(rows).all():
        found = f"an array {list(rows.shape)}" + (
            "" if np.isfinite(rows).all() else " with numbers that are not finite"
        )
        raise InputError(where, expected=f"finite actions {list(shape)} in [-1, 1]", found=found, remedy="correct them")
    return rows


def _terms(result: dict[str, Any]) -> dict[str, Any]:
    """Return the terms of the reward by name."""
    return {name.removeprefix(_TERMS): value for name, value in result.items() if name.startswith(_TERMS)}


class Env(gymnasium.Env):
    """One vehicle of a phase; registered as `mission/NAME-v0` for each installed phase.

    Observations are float32 [O], actions float32 [A] in [-1, 1], clipped. `terminated` is the end by physics or at the goal,
    `truncated` the time limit. `info` of a step holds `terms`, the terms of the reward by name; with `guide=True`, `guide`,
    the action of the guidance law for the observation, [A]; and at the end of an episode `success`, `cause` (its name).

    Attributes:
      vehicle: the `mission.PhaseEnv`, with names of observations, actions and causes.
    """

    def __init__(
        self,
        phase: Phase | str | Sequence[Phase],
        *,
        params: Mapping[str, Any] | None = None,
        bank: Any = None,
        guide: bool = False,
    ) -> None:
        """Compile nothing yet; for arguments and errors see `mission.make_env`."""
        self.vehicle = make_env(phase, params=params, bank=bank, guide=guide)
        spaces = _Spaces(self.vehicle)
        self.observation_space, self.action_space, self.metadata = spaces.observation, spaces.action, spaces.metadata
        self._vehicles, self._begun = _Vehicles(self.vehicle, guide), False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; return its first observation [O] and `info`. The same seed gives the same episodes."""
        super().reset(seed=seed)
        result = self._vehicles.start(int(self.np_random.integers(2**31)))
        self._begun = True
        return result["obs"][0], {name: result[name][0] for name in result if name == "guide"}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control period; return the observation [O], reward, terminated, truncated and `info`.

        Raises:
          InputError: the action has another shape or is not finite, or the episode has not begun or has ended.
          NonFiniteError, PluginError: the phase has an error with which training would stop.
        """
        rows = _checked(action, self.action_space.shape, self._begun, self.vehicle.phase.name)
        result = {name: value[0] for name, value in self._vehicles.step(rows[None]).items()}
        terminated, truncated = bool(result["terminated"]), bool(result["truncated"])
        info: dict[str, Any] = {"terms": {name: float(value) for name, value in _terms(result).items()}}
        if terminated or truncated:
            self._begun = False
            info |= {"success": bool(result["success"]), "cause": self.vehicle.causes[int(result["cause"])]}
        elif "guide" in result:
            info["guide"] = result["guide"]
        return result["next_obs"], float(result["reward"]), terminated, truncated, info


class VectorEnv(vector.VectorEnv):
    """V vehicles of a phase; one compiled program advances all of them and restarts those whose episode ended.

    Gymnasium's autoreset mode is SAME_STEP: where an episode ends, the observation of that step is already the first of the
    next one, `infos["final_obs"][i]` holds the last of the old one, and `infos["final_info"]` how it ended: `success` bool
    [V], `cause` int [V] (index into `vehicles.causes`), `returns` [V] and `steps` [V]. As everywhere in Gymnasium, the mask
    of `key` is `_key`. `infos["terms"]` holds the terms of the reward by name, [V] each; with `guide=True`, `infos["guide"]`
    the actions of the guidance law for the returned observations, [V, A].

    Attributes:
      vehicles: the `mission.PhaseEnv`, with names of observations, actions and causes.
    """

    def __init__(
        self,
        phase: Phase | str | Sequence[Phase],
        num_envs: int = 1,
        *,
        params: Mapping[str, Any] | None = None,
        bank: Any = None,
        guide: bool = False,
    ) -> None:
        """Compile nothing yet; `num_envs` is V, for the other arguments and errors see `mission.make_env`."""
        self.vehicles = make_env(phase, params=params, bank=bank, guide=guide, vehicles=num_envs)
        spaces, batched = _Spaces(self.vehicles), vector.utils.batch_space
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces.observation, spaces.action
        self.observation_space = batched(spaces.observation, num_envs)
        self.action_space = batched(spaces.action, num_envs)
        self.metadata = spaces.metadata | {"autoreset_mode": vector.AutoresetMode.SAME_STEP}
        self._vehicles, self._begun = _Vehicles(self.vehicles, guide), False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start all vehicles; return observations [V, O] and `infos`. The same seed gives the same episodes."""
        super().reset(seed=seed)
        result = self._vehicles.start(int(self.np_random.integers(2**31)))
        self._begun = True
        return result["obs"], self._masked({name: result[name] for name in result if name == "guide"})

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance all vehicles; return observations [V, O], rewards, terminations and truncations [V] and `infos`.

        Raises:
          InputError: the actions have another shape or are not finite, or `reset` was not called.
          NonFiniteError, PluginError: the phase has an error with which training would stop.
        """
        rows = _checked(actions, self.action_space.shape, self._begun, self.vehicles.phase.name)
        result = self._vehicles.step(rows)
        terminated, truncated = result["terminated"], result["truncated"]
        infos = {"terms": self._masked(_terms(result))} | {name: result[name] for name in result if name == "guide"}
        infos = self._masked(infos)
        ended = terminated | truncated
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(ended):
                final[i] = result["next_obs"][i]
            how = {name: result[name] for name in ("success", "cause", "returns", "steps")}
            infos |= self._masked({"final_obs": final, "final_info": self._masked(how, ended)}, ended)
        return result["obs"], result["reward"], terminated, truncated, infos

    def _masked(self, infos: dict[str, Any], mask: np.ndarray | None = None) -> dict[str, Any]:
        """Return infos with a mask bool [V] for each, of the vehicles that have it; default: all."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        return infos | {f"_{name}": mask for name in infos}
