"""Weights & Biases: one run per training, with the numbers of each phase over its own vehicle steps.

The extra `wandb` installs its library, which decides where runs go: `WANDB_MODE=offline` keeps them in the event's `log_dir`.
"""

from __future__ import annotations

from typing import Any

from mission.machine.extras import import_extra
from mission.missionfile.hooks import Event, hookimpl
from mission.observers.runs import continued_run, keep_run, new_identity, numbers_of, results_of, step_of

_wandb = import_extra("wandb", "mission-engine[wandb]", 'observer "wandb"')
_run: Any = None


@hookimpl
def mission_event(event: Event) -> None:
    """Open a run at the start, log every event with numbers, and close the run with the status of the training."""
    global _run
    if event.kind == "mission_start":
        _run = _open(event)
    if _run is None:
        return
    if event.kind == "phase_start":
        _run.define_metric(f"{event.phase}/*", step_metric=f"{event.phase}/env_steps")
    _log(_run, event)
    if event.kind == "phase_end":
        _summarise(_run, event.data, event.phase)
    if event.kind == "mission_end":
        for record in event.data.get("records", ()):
            _summarise(_run, record, record["name"])
        _run.summary.update({name: event.data[name] for name in ("status", "error") if name in event.data})
        run, _run = _run, None
        run.finish(exit_code=0 if event.data["status"] in ("finished", "stopped") else 1)


def _open(event: Event) -> Any:
    identity = continued_run(event, "wandb") or new_identity()
    keep_run(event, "wandb", identity)
    return _wandb.init(
        project=event.mission,
        name=f"{event.mission}, seed {event.data['seed']}",
        id=identity,
        resume="allow",
        reinit="create_new",  # a run that the caller has open stays as it is
        dir=event.data["log_dir"],
        config=event.data["configuration"],
        settings=_wandb.Settings(console="off", silent=True),  # standard output belongs to the results
    )


def _log(run: Any, event: Event) -> None:
    values: dict[str, Any] = dict(numbers_of(event))
    for name, array in event.histograms.items():
        values[f"{event.phase}/Histogram/{name}"] = _wandb.Histogram(array)
    if values:
        axis = f"{event.phase}/env_steps" if event.phase else f"{event.kind}/step"
        run.log({axis: step_of(event), **values})


def _summarise(run: Any, record: dict[str, Any], phase: str) -> None:
    run.summary.update(results_of(record, phase) | {f"{phase}/status": record["status"]})
