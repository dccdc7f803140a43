"""Flights on the workers of a cluster: one task per batch of 1,000, each by the programs that one machine would use.

A worker prepares the mission once and keeps it. Results arrive in any order and are taken in the order of the batches.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mission.flight.batches import batches, compile_flight
from mission.flight.chain import Chain
from mission.flight.fly import PhaseFlight
from mission.machine.devices import configure
from mission.machine.stages import CLUSTER, tell
from mission.report.arrays import Arrays
from mission.report.batch_recorder import BatchRecorder
from mission.report.tracks import TelemetryRecorder
from mission.scale.cluster import Cluster
from mission.scale.shipping import Shipment, pack_mission, unpack_mission


class Job(NamedTuple):
    """What is sent to the workers once: the mission, its policies, and the seed of the flights."""

    key: str
    shipment: Shipment
    actors: tuple[Any, ...]
    seed: int
    policy: str


class Batch(NamedTuple):
    """One task: the numbers of its flights, who flies, and for a report the first flight and whether to record."""

    numbers: np.ndarray
    policy: str
    first: int | None = None
    telemetry: bool = False


class Fleet:
    """The workers of a cluster, with a mission to fly."""

    def __init__(self, cluster: Cluster, chain: Chain) -> None:
        """Send the mission of a chain to the workers."""
        self._cluster, self._policy = cluster, chain.policy
        shipment = pack_mission(chain.mission, chain.phases)
        self._job = cluster.put(Job(uuid.uuid4().hex, shipment, chain.actors, chain.seed, chain.policy))

    @contextlib.contextmanager
    def flying(self, flights: int, first: int) -> Generator[Callable[[np.ndarray], list[PhaseFlight]]]:
        """Yield a function that returns the flights of one batch; results that arrive before their turn wait."""
        early: dict[int, list[PhaseFlight]] = {}
        arriving = self._run([Batch(numbers, self._policy) for numbers in batches(flights, first)])

        def fly(numbers: np.ndarray) -> list[PhaseFlight]:
            while int(numbers[0]) not in early:
                batch, result = next(arriving)
                early[int(batch.numbers[0])] = result
            return early.pop(int(numbers[0]))

        with contextlib.closing(arriving):
            yield fly

    def record(
        self, policy: str, telemetry: bool, first: int, wanted: Sequence[np.ndarray]
    ) -> Generator[tuple[np.ndarray, Arrays]]:
        """Fly batches of a report; yield their numbers and arrays as they complete (`mission.report.recording`)."""
        with contextlib.closing(
            self._run([Batch(numbers, policy, first, telemetry) for numbers in wanted])
        ) as arriving:
            yield from ((batch.numbers, arrays) for batch, arrays in arriving)

    def _run(self, wanted: Sequence[Batch]) -> Generator[tuple[Batch, Any]]:
        """Fly batches; yield each with its result as they complete, and show how far they are and what they cost."""
        begun = time.monotonic()
        with contextlib.closing(self._cluster.run(fly_on_worker, wanted, self._job, _name)) as results:
            for done, (index, result) in enumerate(results, 1):
                seconds = time.monotonic() - begun
                tell(CLUSTER, self._progress(done, len(wanted), seconds))
                yield wanted[index], result

    def _progress(self, done: int, total: int, seconds: float) -> str:
        left = f"about {seconds * (total - done) / done:,.0f} s left" if done < total else f"{seconds:,.0f} s"
        cost = f"{self._cluster.core_seconds:,.0f} core-seconds"
        return f"{self._cluster.workers} workers, {done:,} of {total:,} batches, {left}, {cost}"


def _name(batch: Batch) -> str:
    return f"flights {batch.numbers[0]:,} to {batch.numbers[-1]:,}"


class Prepared:
    """A mission that is ready to fly on a worker."""

    def __init__(self, job: Job) -> None:
        """Unpack and resolve the mission."""
        configure()
        self._policy = job.policy
        mission, phases = unpack_mission(job.shipment)
        self._chain = Chain(
            mission=mission,
            phases=phases,
            actors=job.actors,
            flights=tuple(compile_flight(phase) for phase in phases),
            seed=job.seed,
            policy=job.policy,
            root=mission.folder,  # there are no policies in it
        )

    @functools.cache  # noqa: B019 (the object lives as long as its worker)
    def chain(self, policy: str) -> Chain:
        """Return the chain as the job flies it, or its guides."""
        return self._chain if policy == self._policy else self._chain.guided()

    @functools.cache  # noqa: B019
    def recorder(self, policy: str, telemetry: bool, first: int) -> BatchRecorder:
        """Return what flies batches for a report."""
        chain = self.chain(policy)
        return BatchRecorder(chain, TelemetryRecorder(chain) if telemetry else None, first)


_prepared: dict[str, Prepared] = {}  # in a worker: of its job


def fly_on_worker(job: Job, batch: Batch) -> list[PhaseFlight] | Arrays:
    """Fly one batch on a worker: a record per phase, or the arrays of a report."""
    if job.key not in _prepared:
        _prepared.clear()
        _prepared[job.key] = Prepared(job)
    prepared = _prepared[job.key]
    if batch.first is None:
        return prepared.chain(batch.policy).fly(batch.numbers)
    return prepared.recorder(batch.policy, batch.telemetry, batch.first).fly(batch.numbers)
