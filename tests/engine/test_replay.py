"""Replay against numpy: sampling, weights, priorities, wrap, drift, n-step windows, and no copies."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from jax import Array, lax

from mission.sac import replay as store
from mission.sac.replay import Replay
from mission.testing import make_phase
from mission.training.programs import compile_programs

ALPHA, EPSILON = 0.6, 1e-3
CAPACITIES = (5, 16, 40, 257, 300, 3000)  # one level and two, most of them no multiple of 16


class Row(NamedTuple):
    """A row that carries the vehicle and time it was made at."""

    vehicle: Any
    place: Any
    reward: Any
    ended: Any
    terminated: Any


EXAMPLE = Row(jnp.zeros(()), jnp.zeros((2, 2)), jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
sample = jax.jit(store.sample, static_argnums=2)
update = jax.jit(store.update_priorities)


def filled(capacity: int, td: np.ndarray, alpha: float = ALPHA, epsilon: float = EPSILON) -> Replay:
    """A replay whose first rows have these TD errors."""
    replay = store.create(capacity, 1)._replace(size=jnp.int32(len(td)))
    return update(replay, jnp.arange(len(td)), jnp.asarray(td, jnp.float32), alpha, epsilon)


def leaves(replay: Replay) -> np.ndarray:
    return np.asarray(replay.tree[-1], np.float64).reshape(-1)


def check_sums(replay: Replay, rtol: float = 1e-6) -> None:
    """Every entry above the leaves is the sum of the row below it."""
    for above, below in zip(replay.tree[:-1], replay.tree[1:], strict=True):
        sums = np.asarray(below, np.float64).sum(axis=1)
        np.testing.assert_allclose(np.asarray(above).reshape(-1)[: len(sums)], sums, rtol=rtol, atol=1e-12)
        assert not np.asarray(above).reshape(-1)[len(sums) :].any()


@pytest.mark.parametrize("capacity", [*CAPACITIES, 40_000])  # the last of three levels
def test_sampling_follows_the_priorities(capacity: int) -> None:
    """Stratified: of B draws a row gets B P(i), give or take less than 2; rows without mass get none."""
    rng = np.random.default_rng(capacity)
    td = rng.exponential(size=capacity) * (rng.random(capacity) > 0.3)
    td[0] = 1.0
    replay = filled(capacity, td, epsilon=0.0)
    probability = td**ALPHA / (td**ALPHA).sum()
    np.testing.assert_allclose(leaves(replay)[:capacity], td**ALPHA, rtol=1e-5)
    batch = 8192
    index, weight = map(np.asarray, sample(replay, jax.random.key(1), batch, 0.4))
    counts = np.bincount(index, minlength=capacity)
    assert np.abs(counts - batch * probability).max() < 2.01
    assert not counts[td == 0].any()
    expected = (capacity * probability[index]) ** -0.4
    np.testing.assert_allclose(weight, expected / expected.max(), rtol=2e-5)
    assert weight.max() == 1.0


def test_small_batches_follow_the_priorities_too() -> None:
    rng = np.random.default_rng(0)
    td = rng.exponential(size=70)
    replay = filled(70, td)
    keys = jax.random.split(jax.random.key(0), 4000)
    index = np.asarray(jax.jit(jax.vmap(lambda key: store.sample(replay, key, 8, 0.5)[0]))(keys))
    probability = (td + EPSILON) ** ALPHA
    probability /= probability.sum()
    draws = index.size
    error = np.abs(np.bincount(index.ravel(), minlength=70) / draws - probability) / np.sqrt(
        probability * (1 - probability) / draws
    )
    assert error.max() < 4.5


def test_beta_one_undoes_the_priorities() -> None:
    """E[w f] over E[w] is the plain mean at beta = 1 (PER, section 3.4)."""
    rng = np.random.default_rng(3)
    value = rng.normal(size=100)
    index, weight = map(np.asarray, sample(filled(100, np.abs(value)), jax.random.key(0), 200_000, 1.0))
    np.testing.assert_allclose((weight * value[index]).sum() / weight.sum(), value.mean(), atol=2e-3)


@pytest.mark.parametrize("capacity", [2000, 40_000])
def test_rows_without_mass_are_never_drawn(capacity: int) -> None:
    """Half of the rows, in runs of every length, over a thousand batches: no rounding at the edge of a run."""
    rng = np.random.default_rng(5)
    td = np.repeat(rng.exponential(size=(capacity // 8, 1)) * (rng.random((capacity // 8, 1)) > 0.5), 8, axis=1).ravel()
    td[-capacity // 4 :] = 0.0
    replay = filled(capacity, td, epsilon=0.0)
    draw = jax.jit(lambda key: lax.map(lambda k: store.sample(replay, k, 1024, 0.4), jax.random.split(key, 1000)))
    index, weight = map(np.asarray, draw(jax.random.key(0)))
    assert (td[index] > 0).all()
    assert np.isfinite(weight).all()


def test_unfilled_rows_are_never_drawn() -> None:
    replay = store.create(300, 1)
    replay = store.append(replay, jnp.ones((3, 1)))
    replay = store.append(replay, jnp.ones((3, 1)))
    index, weight = sample(replay, jax.random.key(0), 5000, 0.4)
    np.testing.assert_allclose(np.bincount(np.asarray(index)) / 5000, np.full(6, 1 / 6), atol=1e-3)
    np.testing.assert_allclose(weight, 1.0, rtol=1e-6)


@pytest.mark.parametrize("capacity", [300, 40_000])
def test_extreme_priorities(capacity: int) -> None:
    """A row of a billion times the mass of the others and more, at either end of the tree."""
    for heavy in (0, capacity - 1):
        td = np.full(capacity, 1e-6 * 300 / capacity)
        td[heavy] = 1e9
        index, weight = map(np.asarray, sample(filled(capacity, td, 1.0, 0.0), jax.random.key(0), 4096, 0.4))
        assert (index == heavy).all()
        assert np.isfinite(weight).all()


def test_duplicates_keep_the_largest() -> None:
    replay = filled(40, np.full(40, 100.0))
    index = jnp.array([7, 7, 39, 7, 39])
    replay = update(replay, index, jnp.array([1.0, -3.0, 0.5, 2.0, 0.0]), ALPHA, EPSILON)
    expected = np.full(40, (100.0 + EPSILON) ** ALPHA)
    expected[[7, 39]] = (3.0 + EPSILON) ** ALPHA, (0.5 + EPSILON) ** ALPHA
    np.testing.assert_allclose(leaves(replay)[:40], expected, rtol=1e-6)
    np.testing.assert_allclose(replay.largest, (100.0 + EPSILON) ** ALPHA, rtol=1e-6)
    check_sums(replay)


def test_append_wraps_and_gives_new_rows_the_largest_priority() -> None:
    replay = store.create(12, 1)
    append = jax.jit(store.append)
    for t in range(5):
        replay = append(replay, jnp.full((4, 1), float(t)))
        assert int(replay.size) == min(4 * (t + 1), 12)
        assert int(replay.cursor) == 4 * (t + 1) % 12
        if t == 2:
            replay = update(replay, jnp.arange(12), jnp.linspace(0.0, 8.0, 12), ALPHA, EPSILON)
    np.testing.assert_array_equal(replay.rows[:, 0], np.repeat([3.0, 4.0, 2.0], 4))
    largest = (8.0 + EPSILON) ** ALPHA
    np.testing.assert_allclose(leaves(replay)[:8], largest, rtol=1e-6)
    np.testing.assert_allclose(leaves(replay)[8:12], (np.linspace(0.0, 8.0, 12)[8:] + EPSILON) ** ALPHA, rtol=1e-5)
    assert not leaves(replay)[12:].any()
    check_sums(replay)
    with pytest.raises(ValueError, match="not a multiple"):
        store.append(replay, jnp.zeros((5, 1)))


def test_sums_do_not_drift() -> None:
    replay = filled(5000, np.ones(5000))

    def step(replay: Replay, key: Array) -> tuple[Replay, None]:
        pick, size = jax.random.split(key)
        scale = 10.0 ** jax.random.uniform(size, (64,), minval=-4.0, maxval=4.0)
        return store.update_priorities(replay, jax.random.randint(pick, (64,), 0, 5000), scale, ALPHA, EPSILON), None

    replay, _ = jax.jit(lambda replay, keys: lax.scan(step, replay, keys))(
        replay, jax.random.split(jax.random.key(0), 5000)
    )
    total = leaves(replay).sum()
    assert abs(float(np.asarray(replay.tree[0], np.float64).sum()) - total) <= 1e-6 * total
    check_sums(replay)


def test_uniform_mode() -> None:
    replay = store.create(40, 1, prioritised=False)
    for _ in range(6):
        replay = store.append(replay, jnp.ones((5, 1)))
    index, weight = map(np.asarray, sample(replay, jax.random.key(0), 60_000, 0.4))
    assert replay.tree == ()
    np.testing.assert_array_equal(weight, 1.0)
    assert len(np.bincount(index)) == 30
    np.testing.assert_allclose(np.bincount(index) / 60_000, 1 / 30, atol=4.5 * np.sqrt(1 / 30 / 60_000))
    assert store.update_priorities(replay, jnp.arange(3), jnp.ones(3), ALPHA, EPSILON) is replay
    assert store.rebuild_priorities(replay, jnp.ones(40), ALPHA, EPSILON) is replay


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_rebuild_is_setting_one_by_one(capacity: int) -> None:
    td = np.random.default_rng(1).normal(size=capacity)
    size = max(1, 2 * capacity // 3)
    replay = store.create(capacity, 1)._replace(size=jnp.int32(size))
    rebuilt = jax.jit(store.rebuild_priorities)(replay, jnp.asarray(td, jnp.float32), ALPHA, EPSILON)
    single = replay
    for row in range(size):
        single = update(single, jnp.array([row]), jnp.asarray(td[row : row + 1], jnp.float32), ALPHA, EPSILON)
    for one, other in zip(rebuilt.tree, single.tree, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(rebuilt.largest, ((np.abs(td[:size]) + EPSILON) ** ALPHA).max(), rtol=1e-6)
    check_sums(rebuilt)


def test_pack_and_unpack() -> None:
    rng = np.random.default_rng(0)
    batch = jax.tree.map(lambda leaf: rng.normal(size=(6, *leaf.shape)).astype(np.float32), EXAMPLE)
    packed = store.pack(batch)
    assert packed.shape == (6, store.row_width(EXAMPLE)) == (6, 8)
    jax.tree.map(np.testing.assert_array_equal, store.unpack(packed, EXAMPLE), batch)
    jax.tree.map(
        np.testing.assert_array_equal, store.unpack(packed[None], EXAMPLE), jax.tree.map(lambda leaf: leaf[None], batch)
    )


VEHICLES, GAMMA = 4, 0.9


@pytest.mark.parametrize("steps", [3, 10, 13, 27], ids=lambda n: f"{n} steps")
@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_n_step_windows(n: int, steps: int) -> None:
    """Ring of 10 steps of 4 vehicles; each row says who and when it was, so windows can be walked by hand."""
    replay = store.create(10 * VEHICLES, store.row_width(EXAMPLE))
    append = jax.jit(store.append)
    vehicle = np.arange(VEHICLES, dtype=np.float32)

    def reward(v: int, t: int) -> float:
        return 1.0 + 10.0 * v + 0.01 * t

    def ended(v: int, t: int) -> bool:
        return (t + 2 * v) % 7 == 5

    for t in range(steps):
        row = Row(
            vehicle,
            np.broadcast_to(np.float32(t), (VEHICLES, 2, 2)),
            np.array([reward(v, t) for v in range(VEHICLES)], np.float32),
            np.array([ended(v, t) for v in range(VEHICLES)], np.float32),
            np.array([ended(v, t) and v % 2 == 0 for v in range(VEHICLES)], np.float32),
        )
        replay = append(replay, row)
    index = jnp.arange(int(replay.size))
    window = jax.jit(lambda replay, index: store.gather_n_step(replay, index, EXAMPLE, n, GAMMA, VEHICLES))(
        replay, index
    )
    seen = set()
    for i in range(int(replay.size)):
        v, t = int(window.first.vehicle[i]), int(window.first.place[i, 0, 0])
        seen.add((v, t))
        last, total = t, 0.0
        while True:
            total += GAMMA ** (last - t) * reward(v, last)
            if ended(v, last) or last == steps - 1 or last - t == n - 1:
                break
            last += 1
        assert (int(window.last.vehicle[i]), int(window.last.place[i, 1, 1])) == (v, last)
        assert float(window.last.terminated[i]) == float(ended(v, last) and v % 2 == 0)
        np.testing.assert_allclose(window.reward[i], total, rtol=1e-5)
        np.testing.assert_allclose(window.discount[i], GAMMA ** (last - t + 1), rtol=1e-5)
    assert seen == {(v, t) for v in range(VEHICLES) for t in range(max(0, steps - 10), steps)}


def copies_in_loops(text: str) -> tuple[list[int], int]:
    """Floats of every `copy` in the bodies of while loops and what they call, and the number of bodies."""
    lines: dict[str, list[str]] = defaultdict(list)
    name = ""
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        name = head.group(1) if head else name
        lines[name].append(line)
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    reach, queue = set(), list(bodies)
    while queue:
        name = queue.pop()
        if name not in reach:
            reach.add(name)
            queue += re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", "\n".join(lines[name]))
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* copy\(", "\n".join(line for name in reach for line in lines[name]))
    return [int(np.prod([int(size) for size in shape.split(",") if size])) for shape in shapes], len(bodies)


def test_no_copies_of_the_buffer_in_the_loop() -> None:
    rows, batch, appended = 500_000, 256, 32

    def step(replay: Replay, key: Array) -> tuple[Replay, Array]:
        fresh = jax.tree.map(lambda leaf: jax.random.normal(key, (appended, *leaf.shape)), EXAMPLE)
        replay = store.append(replay, fresh)
        index, weight = store.sample(replay, key, batch, 0.4)
        window = store.gather_n_step(replay, index, EXAMPLE, 3, 0.99, appended)
        td = weight * (window.reward + window.last.place.sum(axis=(1, 2)))
        return store.update_priorities(replay, index, td, ALPHA, EPSILON), td.sum()

    def run(replay: Replay, keys: Array) -> tuple[Replay, Array]:
        return lax.scan(step, replay, keys)

    shapes = jax.eval_shape(
        lambda: (store.create(rows, store.row_width(EXAMPLE)), jax.random.split(jax.random.key(0), 100))
    )
    text = jax.jit(run, donate_argnums=0).lower(*shapes).compile().as_text()
    sizes, bodies = copies_in_loops(text)
    assert bodies
    assert "f32[500000,8]" in text
    assert max(sizes, default=0) <= 10_000


def test_no_copies_of_the_buffer_in_a_training_chunk() -> None:
    """The same of the program that really trains, on its devices."""
    phase = make_phase(probes.death(buffer_size=500_000, n_step=3))
    programs = compile_programs(phase)
    key = jax.random.key(0)
    text = programs.chunk.text(programs.init(key), None, key, np.int32(0), np.bool_(False))
    sizes, bodies = copies_in_loops(text)
    assert bodies
    assert "f32[500000,8]" in text
    assert max(sizes, default=0) <= 10_000


def test_the_search_for_copies_finds_one() -> None:
    """A loop that needs the old buffer after writing to it."""

    def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        a, b = carry
        return (b.at[i].set(1.0), a.at[i].add(b[0])), a[i]

    shape = jax.ShapeDtypeStruct((50_000,), jnp.float32)
    lowered = jax.jit(lambda a, b: lax.scan(step, (a, b), jnp.arange(9)), donate_argnums=(0, 1)).lower(shape, shape)
    sizes, bodies = copies_in_loops(lowered.compile().as_text())
    assert bodies
    assert max(sizes, default=0) == 50_000
