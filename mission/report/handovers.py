"""Where flights enter a phase, against where it was trained from.

Shapes: N flights, M training starts, C channels.
"""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np

from mission.errors import MachineError
from mission.flight.batches import BATCH, flight_keys, name_key, nominal_starts, to_host
from mission.flight.chain import Chain
from mission.flight.trees import count
from mission.report.records import FlightRecords, Starts
from mission.report.tracks import Recorder
from mission.statistics import two_sample
from mission.storage.steps import PhaseFolder
from mission.training.bank import load_bank

log = logging.getLogger("mission")
_FAR = 0.1  # a distance that matters
_SURE = 0.001  # and is not chance


@dataclasses.dataclass(frozen=True)
class Handover:
    """One channel on entering one phase: flights against training starts."""

    phase: str
    channel: str
    distance: float  # Kolmogorov-Smirnov: largest difference of the two distribution functions
    p_value: float
    differs: bool


def training_starts(chain: Chain, index: int, recorder: Recorder) -> Starts:
    """What phase `index` (not the first) was trained from: the bank before it, or its own start."""
    phase, before = chain.phases[index], chain.phases[index - 1]
    key = name_key(jax.random.key(chain.seed), f"starts of {phase.name}")
    folder = PhaseFolder(chain.root / before.name)
    rows, source = None, f"the own starts of {phase.name}, since no bank of {before.name} is stored"
    try:
        record = folder.policy_record()
        bank = load_bank(folder, before, record) if record is not None else None
        if bank is not None:
            rows = jax.tree.map(lambda leaf: leaf[:BATCH], to_host(bank.rows))
            source = f"{count(rows):,} of the {count(bank.rows):,} stored end states of {before.name}"
    except MachineError as error:
        log.warning("no training starts of %s: %s", phase.name, error.found)
    if rows is None:
        rows = nominal_starts(phase, flight_keys(key, np.arange(BATCH)))
    return Starts(source, recorder.entering(index, rows, flight_keys(key, np.arange(count(rows)))))


def compare_handovers(records: FlightRecords) -> tuple[Handover, ...]:
    """Every channel of every phase but the first; NaN does not count."""
    found = []
    for phase in records.flights.phases:
        starts = records.starts.get(phase.name)
        if starts is None or not phase.entered.any():
            continue
        for at, channel in enumerate(phase.channels):
            distance, p_value = two_sample(phase.enter[phase.entered, at], starts.values[:, at])
            found.append(Handover(phase.name, channel, distance, p_value, distance >= _FAR and p_value < _SURE))
    return tuple(found)
