"""Flights of the shipped missions again: the same bits as in a campaign, and starts from a table."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from mission import load_mission
from mission.flight.again import fly_again
from mission.flight.chain import Chain, prepare_chain
from mission.report.trajectories.starting import write_starts

MISSIONS = Path(__file__).parents[3] / "missions"


def assert_same(campaign: Chain, numbers: tuple[int, ...], most: int) -> None:
    """Compare flights that are flown again with those of a campaign of `most` flights, bit by bit."""
    flown = {k: [] for k in range(len(campaign.phases))}
    hand_overs = {k: [] for k in range(len(campaign.phases))}

    def fly_one(k, handoff, keys, alive):
        from mission.flight.batches import fly_batch

        result = fly_batch(campaign.flights[k], campaign.actors[k], handoff, keys, alive)
        hand_overs[k].append(result.handoff)
        return result

    parts = [campaign.fly(np.arange(at, min(at + 1000, most)), fly_one) for at in range(0, most, 1000)]
    for k in flown:
        flown[k] = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part[k] for part in parts))
    again = fly_again(campaign, numbers)
    assert list(again) == sorted(numbers)
    for number, phases in again.items():
        for k, (one, table) in enumerate(phases):
            whole = jax.tree.map(lambda leaf, n=number: leaf[n], flown[k])
            stored = jax.tree.map(lambda *leaves: np.concatenate(leaves)[number], *hand_overs[k])
            jax.tree.map(np.testing.assert_array_equal, one._replace(handoff=()), whole)
            jax.tree.map(np.testing.assert_array_equal, one.handoff, stored)
            assert len(table) == int(one.steps) + 1
            np.testing.assert_array_equal(table[0], one.enter)
            np.testing.assert_array_equal(table[-1], np.stack(list(one.telemetry.values())))
            for name, low in one.lowest.items():  # of every step: the telemetry between is that of the same flight
                column = table[:, campaign.phases[k].channels.index(name)]
                assert (column.min(), column.max()) == (low, one.highest[name])
        assert len(phases) == len(campaign.phases) or not phases[-1].flight.success


def test_flights_of_the_vertical_mission_again(caplog):
    chain = prepare_chain(load_mission(MISSIONS / "vertical.yaml"))
    assert_same(chain, (0, 7, 249, 250, 1003, 1049), 1050)  # first and last lane of a block, a padded block
    assert "rounds" not in caplog.text


@pytest.mark.slow
def test_flights_of_the_whole_mission_again(caplog):
    chain = prepare_chain(load_mission(MISSIONS / "return_to_launch_site.yaml"))
    assert_same(chain, (3, 248, 249), 250)
    assert "rounds" not in caplog.text


def test_the_start_of_a_whole_flight_is_a_row_of_a_table(tmp_path):
    path = tmp_path / "starts.csv"
    mission = load_mission(MISSIONS / "return_to_launch_site.yaml")
    write_starts(mission, path, 3)
    head = path.read_text().splitlines()[0].split(",")
    some = {"state.motion.position.x", "state.motion.levels[0]", "dispersion.thrust", "dispersion.wind.percentile"}
    assert some <= set(head)
    chain = prepare_chain(mission, policy="guide")
    given = chain.starting_from(path)
    jax.tree.map(np.testing.assert_array_equal, given.starts(np.arange(3)), chain.starts(np.arange(3)))
