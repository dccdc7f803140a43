"""MLflow: one run per training, with the numbers of each phase over its vehicle steps.

The extra `mlflow` installs its library. Runs go to the store that `MLFLOW_TRACKING_URI` or `mlflow.set_tracking_uri` names, else
to the database `mlflow.db` beside the folders of the observers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mission.machine.extras import import_extra
from mission.missionfile.hooks import Event, hookimpl
from mission.observers.runs import Setting, continued_run, flat_settings, keep_run, numbers_of, results_of, step_of

_WHERE = 'observer "mlflow"'
_mlflow, _entities = (import_extra(name, "mission-engine[mlflow]", _WHERE) for name in ("mlflow", "mlflow.entities"))
_MOST_TEXT, _AT_ONCE = 6000, 100  # what MLflow takes
_ENDS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}


class _Run:
    """One run of MLflow; the client is used instead of the active run of a process, which is the caller's."""

    def __init__(self, event: Event) -> None:
        """Continue the run of a training, or create one."""
        folder = Path(event.data["log_dir"]).parent.resolve()
        own = not _mlflow.is_tracking_uri_set()
        folder.mkdir(parents=True, exist_ok=True)
        self.client = _mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}" if own else None)
        artifacts = (folder / "mlflow-artifacts").as_uri() if own else None
        self.id = self._continued(event) or self._created(event, artifacts)
        self.settings(flat_settings(event.data["configuration"]))
        self.client.log_dict(self.id, event.data["configuration"], "configuration.json")

    def _continued(self, event: Event) -> str | None:
        identity = continued_run(event, "mlflow")
        if identity is None:
            return None
        try:
            self.client.update_run(identity, status="RUNNING")
        except _mlflow.MlflowException:  # it was deleted, or the store is another one
            return None
        return identity

    def _created(self, event: Event, artifacts: str | None) -> str:
        experiment = self.client.get_experiment_by_name(event.mission)
        identity = experiment.experiment_id if experiment else self.client.create_experiment(event.mission, artifacts)
        name = f"{event.mission}, seed {event.data['seed']}"
        run = self.client.create_run(identity, run_name=name).info.run_id
        keep_run(event, "mlflow", run)
        return run

    def settings(self, settings: dict[str, Setting]) -> None:
        """Log settings as parameters; one that has changed since, such as a budget, becomes a tag, since parameters cannot."""
        known = self.client.get_run(self.id).data.params
        texts = {name: str(value)[:_MOST_TEXT] for name, value in settings.items()}
        new = [_entities.Param(name, text) for name, text in texts.items() if name not in known]
        for at in range(0, len(new), _AT_ONCE):
            self.client.log_batch(self.id, params=new[at : at + _AT_ONCE])
        for name, text in texts.items():
            if known.get(name, text) != text:
                self.client.set_tag(self.id, f"resumed/{name}", text)

    def numbers(self, values: dict[str, float], step: int) -> None:
        """Log numbers at a step."""
        now = int(1000 * time.time())
        metrics = [_entities.Metric(name, value, now, step) for name, value in values.items()]
        if metrics:
            self.client.log_batch(self.id, metrics=metrics)

    def summarise(self, record: dict[str, Any], phase: str) -> None:
        """Log the result of a phase."""
        self.numbers(results_of(record, phase), record["env_steps"])
        self.client.set_tag(self.id, f"{phase}/status", record["status"])

    def end(self, data: dict[str, Any]) -> None:
        """Close the run with the status of the training."""
        for name in ("status", "error"):
            if name in data:
                self.client.set_tag(self.id, name, data[name])
        self.client.set_terminated(self.id, _ENDS.get(data["status"], "FAILED"))


_run: _Run | None = None


@hookimpl
def mission_event(event: Event) -> None:
    """Open a run at the start, log every event with numbers, and close the run with the status of the training."""
    global _run
    if event.kind == "mission_start":
        _run = _Run(event)
    if _run is None:
        return
    _run.numbers(numbers_of(event), step_of(event))
    if event.kind == "phase_end":
        _run.summarise(event.data, event.phase)
    if event.kind == "mission_end":
        run, _run = _run, None
        for record in event.data.get("records", ()):
            if record["status"] == "already trained":  # the others have been logged when they ended
                run.summarise(record, record["name"])
        run.end(event.data)
