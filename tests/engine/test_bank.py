"""The bank: fitted density, degenerate columns, whole numbers, too few rows, held-out lineage."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from factory import CART, write_mission
from probes import Drift

from mission import load_mission, resolve_mission, train_mission
from mission.errors import GateError
from mission.flight.batches import compile_flight, loss_causes
from mission.machine.trees import count
from mission.missionfile.held_out import warn_of_repeated_starts
from mission.missionfile.models import Bank
from mission.missionfile.phases import Phase
from mission.storage.steps import PhaseFolder
from mission.testing import make_phase
from mission.training.bank import TerminalBank, bank_flights, build_bank, fit_density, load_bank
from mission.training.restart import draw_noise

COVARIANCE = np.array([[4.0, -1.0, 0.0], [-1.0, 1.0, 0.3], [0.0, 0.3, 0.5]])


def correlated(rows: int) -> dict[str, np.ndarray]:
    """Leaves of several shapes and dtypes; the floats have a known covariance."""
    rng = np.random.default_rng(0)
    table = rng.multivariate_normal([10.0, -3.0, 0.5], COVARIANCE, size=rows).astype(np.float32)
    return {"a": table[:, :2], "b": np.arange(rows, dtype=np.int32), "c": table[:, 2], "d": np.arange(rows) % 2 == 0}


def test_density_has_the_rows_mean_and_covariance() -> None:
    rows = correlated(5000)
    mean, factor = fit_density(rows)
    table = np.concatenate([rows["a"], rows["c"][:, None]], axis=1).astype(np.float64)
    np.testing.assert_allclose(mean, table.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(factor @ factor.T, np.cov(table, rowvar=False, bias=True), rtol=1e-4, atol=1e-4)


def test_noise_has_the_fitted_covariance_and_spares_whole_numbers() -> None:
    _, factor = fit_density(correlated(5000))
    row = {"a": jnp.array([1.0, 2.0]), "b": jnp.int32(7), "c": jnp.float32(3.0), "d": jnp.bool_(True)}
    keys = jax.random.split(jax.random.key(0), 50_000)
    noise = jax.jit(jax.vmap(lambda key: draw_noise(row, jnp.asarray(factor), 0.5, key)))(keys)
    noisy = jax.vmap(probes.DriftEnvironment().perturb, (None, 0))(row, noise)
    assert noisy["b"].dtype == jnp.int32
    assert (noisy["b"] == 7).all()
    assert noisy["d"].all()
    shifts = np.concatenate([noisy["a"], noisy["c"][:, None]], axis=1) - np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(shifts.mean(axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(np.cov(shifts, rowvar=False), 0.25 * COVARIANCE, atol=0.05)


def test_degenerate_columns() -> None:
    """A constant, a copy of another column, and very different scales."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    rows = {
        "constant": np.full(400, 5.0, np.float32),
        "small": 1e-4 * x[:, 0],
        "large": 1e6 * x[:, 1],
        "copy": 2.0 * x[:, 0],
    }
    mean, factor = fit_density(rows)
    table = np.stack([rows[name] for name in sorted(rows)], axis=1).astype(np.float64)
    np.testing.assert_allclose(mean, table.mean(axis=0), rtol=1e-4)
    assert np.isfinite(factor).all()
    expected = np.cov(table, rowvar=False, bias=True)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(factor.astype(np.float64) @ factor.T, expected, atol=1e-5 * scale.max(), rtol=1e-3)
    np.testing.assert_array_equal(factor[sorted(rows).index("constant")], 0.0)


def test_single_row_and_no_floats() -> None:
    mean, factor = fit_density({"x": np.array([3.0], np.float32)})
    np.testing.assert_array_equal([mean[0], factor[0, 0]], [3.0, 0.0])
    mean, factor = fit_density({"n": np.arange(5)})
    assert (mean.shape, factor.shape) == ((0,), (0, 0))
    key = jax.random.key(5)
    noise = draw_noise({"n": jnp.int32(4), "key": key}, jnp.asarray(factor), 1.0, jax.random.key(0))
    row = probes.DriftEnvironment().perturb({"n": jnp.int32(4), "key": key}, noise)
    assert (int(row["n"]), row["key"]) == (4, key)


def test_bank_keeps_the_successes() -> None:
    success, held_out = np.arange(200) % 4 != 1, np.arange(200) < 40
    rows = jax.tree.map(jnp.asarray, correlated(200))
    bank = build_bank(rows, success, held_out, Bank(minimum=100), "here", {})
    np.testing.assert_array_equal(bank.rows["b"], np.flatnonzero(success & ~held_out))
    np.testing.assert_array_equal(bank.held_out["b"], np.flatnonzero(success & held_out))
    assert (count(bank.rows), count(bank.held_out)) == (120, 30)
    mean, factor = fit_density(jax.tree.map(np.asarray, bank.rows))
    np.testing.assert_array_equal(bank.mean, mean)
    np.testing.assert_array_equal(bank.factor, factor)


@pytest.mark.parametrize(
    ("won", "numbers"),
    [(0, ("0 + 0 held out", "of 200")), (50, ("10 + 40 held out", "of 200")), (30, ("0 + 30 held out", "of 200"))],
)
def test_too_few_successes(won: int, numbers: tuple[str, ...]) -> None:
    rows = jax.tree.map(jnp.asarray, correlated(200))
    with pytest.raises(GateError) as caught:
        build_bank(
            rows,
            np.arange(200) < won,
            np.arange(200) < 40,
            Bank(minimum=64),
            'phase "x"',
            {"lost": 200 - won, "time_out": 0},
        )
    text = str(caught.value)
    for part in (*numbers, "at least 64", f"lost {200 - won}", 'phase "x"'):
        assert part in text
    assert "time_out" not in text
    assert caught.value.exit_code == 1


def test_one_side_must_not_be_empty() -> None:
    rows = jax.tree.map(jnp.asarray, correlated(200))
    with pytest.raises(GateError, match="100 \\+ 0 held out"):
        build_bank(rows, np.arange(200) >= 100, np.arange(200) < 40, Bank(minimum=64), "here", {})


def settled(until: int, flights: int) -> Phase:
    phase = make_phase(probes.drift(until=until, broken=3))
    return dataclasses.replace(
        phase, entry=phase.entry.model_copy(update={"bank": Bank(flights=flights, held_out=0.25, minimum=4)})
    )


def test_held_out_rows_lead_to_held_out_rows() -> None:
    """Labels say which upstream row a flight began at; down two phases no lineage crosses over."""
    labels = np.arange(60, dtype=np.int32)
    rows = Drift(jnp.zeros((60, 2)), jnp.zeros((60, 2)), jnp.zeros(60, jnp.int32), jnp.asarray(labels))
    mean, factor = fit_density(jax.tree.map(np.asarray, rows))
    bank = TerminalBank(
        jax.tree.map(lambda leaf: leaf[10:], rows), jax.tree.map(lambda leaf: leaf[:10], rows), mean, factor
    )
    for until in (5, 9):
        phase = settled(until, 200)
        result, held_out = bank_flights(phase, compile_flight(phase), None, bank, jax.random.key(0))
        assert held_out.sum() == 50
        began = np.asarray(result.handoff.label)
        assert set(began[held_out]) <= set(range(10))
        assert set(began[~held_out]) <= set(range(10, 60))
        assert set(began) == set(np.asarray(bank.rows.label)) | set(np.asarray(bank.held_out.label))
        losses = loss_causes(phase.causes, result, np.ones(200, bool))
        assert losses["non_finite"] == (5 if until == 5 else 0)  # label 3, all of them held out
        bank = build_bank(result.handoff, result.success, held_out, phase.entry.bank, "here", losses)
        assert set(np.asarray(bank.held_out.label)) == set(range(10)) - {3}
        assert set(np.asarray(bank.rows.label)) == set(range(10, 60))


def test_first_bank_holds_out_flights() -> None:
    phase = settled(5, 80)
    result, held_out = bank_flights(phase, compile_flight(phase), None, None, jax.random.key(0))
    bank = build_bank(result.handoff, result.success, held_out, phase.entry.bank, "here", {})
    one, other = ({tuple(row) for row in np.asarray(part.position)} for part in (bank.rows, bank.held_out))
    assert (len(one), len(other)) == (60, 20)
    assert not one & other


def test_settings_that_hold_every_flight_out_are_refused() -> None:
    assert Bank(flights=10, held_out=0.94, minimum=2).held_out_flights == 9
    assert Bank(flights=2, held_out=0.01, minimum=2).held_out_flights == 1
    for settings in ({"flights": 10, "held_out": 0.96}, {"flights": 2, "held_out": 0.9}):
        with pytest.raises(ValueError, match="held_out"):
            Bank(minimum=2, **settings)


WHOLE = (  # position and velocity are handed over in thousandths, as whole numbers
    CART.replace(
        "return Cart(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros(()))",
        "return Cart(jax.random.randint(key, (), -1000, 1000), jnp.int32(0))",
    )
    .replace("return State(handoff,", "return State(jax.tree.map(lambda x: jnp.float32(x) / 1000, handoff),")
    .replace("return state.cart\n", "return jax.tree.map(lambda x: (1000 * x).astype(jnp.int32), state.cart)\n")
)


def test_whole_numbers_are_trained_stored_and_passed_on(tmp_path, caplog) -> None:
    """A guide leaves the bank from which an agent is trained; more gate flights than held-out rows warn once."""
    overrides = [
        "phases.first.policy=guide",
        "phases.second.budget.env_steps=1600",
        "phases.second.evaluation.every_env_steps=512",
        "phases.second.gate={success_low: 1.0e-3, flights: 50, channels: {position_m: {mean_min: 9.0}}}",
    ]
    path = write_mission(tmp_path, plugin=WHOLE)
    with pytest.raises(GateError, match="position_m"):
        train_mission(load_mission(path, overrides), checkpoints=tmp_path, allow_local_plugins=True)
    phases = resolve_mission(load_mission(path, overrides), allow_local_plugins=True)
    for phase in phases:
        folder = PhaseFolder(tmp_path / "trial" / phase.name)
        record = folder.policy_record()
        assert record is not None
        bank = load_bank(folder, phase, record)
        assert bank is not None
        assert {leaf.dtype for leaf in jax.tree.leaves(bank.rows)} == {jnp.dtype(jnp.int32)}
        assert np.abs(np.asarray(bank.rows.position_m)).max() > 10
        assert (bank.mean.shape, bank.factor.shape) == ((0,), (0, 0))
    assert sum("gate flights start from at most 40" in record.message for record in caplog.records) == 1


def test_default_settings_never_warn(tmp_path, caplog) -> None:
    """Only a gate that asks for more flights than the bank before it holds out is worth a warning."""
    text = "name: trial\nphases:\n" + "".join(f"  - {{name: {n}, plugin: ./cart.py, gate: {{}}}}\n" for n in "ab")
    path = write_mission(tmp_path, text)
    warn_of_repeated_starts(resolve_mission(load_mission(path), allow_local_plugins=True))
    assert not caplog.records
    warn_of_repeated_starts(
        resolve_mission(load_mission(path, ["phases.a.bank.flights=5000"]), allow_local_plugins=True)
    )
    assert not caplog.records
    for overrides in (["phases.b.gate.flights=1025"], ["phases.a.bank.flights=5000", "phases.b.gate.flights=1024"]):
        caplog.clear()
        warn_of_repeated_starts(resolve_mission(load_mission(path, overrides), allow_local_plugins=True))
        assert [record.message for record in caplog.records if "held-out rows" in record.message]
    caplog.clear()
    guided = ["phases.b.gate.flights=1025", "phases.b.policy=guide"]
    warn_of_repeated_starts(resolve_mission(load_mission(path, guided), allow_local_plugins=True))
    assert not caplog.records


def test_a_guide_that_always_fails_is_not_told_to_train_longer(tmp_path) -> None:
    overrides = ["phases.first.policy=guide", "phases.first.params.tolerance_m=1e-9"]
    mission = load_mission(write_mission(tmp_path), overrides)
    with pytest.raises(GateError, match=r"0 \+ 0 held out, of 200 flights; failures: missed 200") as caught:
        train_mission(mission, checkpoints=tmp_path, allow_local_plugins=True)
    assert "env_steps" not in caught.value.remedy
    assert "guide" in caught.value.remedy
