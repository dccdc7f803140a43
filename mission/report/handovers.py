"""Hand-overs: the entry states of flights in a phase, compared with its training starts.

Shapes: M training starts, C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import jax
import numpy as np

from mission.errors import FormatError, MachineError
from mission.flight.batches import BATCH, flight_keys, name_key, nominal_starts, to_host
from mission.flight.chain import Chain
from mission.machine.trees import count
from mission.missionfile.statistics import two_sample
from mission.report.flight_records import Flights, TrainingStarts
from mission.report.header import ChannelShift
from mission.report.tracks import TelemetryRecorder
from mission.storage.steps import PhaseFolder
from mission.training.bank import load_bank

log = logging.getLogger("mission")
# A channel differs if the distance is large enough to matter and too improbable to be chance.
_DISTANCE_MIN = 0.1
_P_VALUE_MAX = 0.001


def training_starts(chain: Chain, index: int, recorder: TelemetryRecorder) -> TrainingStarts:
    """Return the starts from which phase `index` was trained: the bank before it, else the phase's own starts.

    The bank of a phase that another folder's policy flies is that of the mission in which this policy was trained.

    Args:
      chain: the mission that flies.
      index: index of the phase; not the first.
      recorder: the recorder of that chain.
    """
    phase, before = chain.phases[index], chain.phases[index - 1]
    key = name_key(jax.random.key(chain.seed), f"starts of {phase.name}")
    rows, source = None, f"own starts of {phase.name}, since no bank of {before.name} is stored"
    try:
        folder = _folder_before(chain, index)
        record = folder.policy_record()
        bank = load_bank(folder, before, record) if record is not None else None
        if bank is not None:
            rows = jax.tree.map(lambda leaf: leaf[:BATCH], to_host(bank.rows))
            source = f"{count(rows):,} of the {count(bank.rows):,} stored end states of {before.name}"
    except (MachineError, FormatError) as error:
        log.warning("no training starts of %s: %s", phase.name, error.found)
    if rows is None:
        rows = nominal_starts(phase, flight_keys(key, np.arange(BATCH)))
    return TrainingStarts(source, recorder.entering(index, rows, flight_keys(key, np.arange(count(rows)))))


def _folder_before(chain: Chain, index: int) -> PhaseFolder:
    """Return the folder of the phase from whose bank the policy that flies phase `index` was trained."""
    folder = chain.folder(index)
    if folder.parent == chain.root:
        return PhaseFolder(chain.root / chain.phases[index - 1].name)
    record = PhaseFolder(folder).policy_record()
    names = [phase.name for phase in record.configuration] if record is not None else []
    return PhaseFolder(folder.parent / (names[-2] if len(names) > 1 else "start"))


def compare_handovers(flights: Flights, starts: Mapping[str, TrainingStarts]) -> tuple[ChannelShift, ...]:
    """Compare every channel of every phase that flights entered and whose training starts are known.

    Values that are not finite are left out.
    """
    shifts = []
    for phase in flights.phases:
        trained = starts.get(phase.name)
        if trained is None or not phase.entered.any():
            continue
        for at, channel in enumerate(phase.channels):
            distance, p_value = two_sample(phase.enter[phase.entered, at], trained.values[:, at])
            shifts.append(
                ChannelShift(
                    phase=phase.name,
                    channel=channel,
                    distance=distance,
                    p_value=p_value,
                    differs=distance >= _DISTANCE_MIN and p_value < _P_VALUE_MAX,
                )
            )
    return tuple(shifts)
