"""The resolved configuration as hyperparameters of TensorBoard: a session with the settings, and one group of metrics per phase.

TensorBoard reads them from three summaries without values, whose content is in their metadata.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from mission.observers.runs import Setting

METRICS = ("Evaluation/Success", "Evaluation/Return")


def session_start(name: str, settings: dict[str, Setting], phases: list[str]) -> list[Any]:
    """Return the summaries at the start of a training: the columns of the table, and the values of this session.

    Args:
      name: of the session group.
      settings: by name.
      phases: the folders beside the session's file, which hold the metrics.
    """
    api, hparams = _proto("api"), _proto("plugin_hparams")
    kinds = {bool: "DATA_TYPE_BOOL", str: "DATA_TYPE_STRING"}
    columns = [
        api.HParamInfo(name=key, type=api.DataType.Value(kinds.get(type(value), "DATA_TYPE_FLOAT64")))
        for key, value in settings.items()
    ]
    metrics = [
        api.MetricInfo(name=api.MetricName(group=phase, tag=tag), display_name=f"{phase}/{tag}")
        for phase in phases
        for tag in METRICS
    ]
    experiment = api.Experiment(hparam_infos=columns, metric_infos=metrics)
    start = hparams.SessionStartInfo(group_name=name, start_time_secs=time.time())
    for key, value in settings.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, str):
            start.hparams[key].string_value = value
        else:
            start.hparams[key].number_value = float(value)
    return [_summary("experiment", experiment=experiment), _summary("session_start_info", session_start_info=start)]


def session_end(good: bool) -> list[Any]:
    """Return the summary at the end of a training."""
    api, hparams = _proto("api"), _proto("plugin_hparams")
    status = api.Status.Value("STATUS_SUCCESS" if good else "STATUS_FAILURE")
    end = hparams.SessionEndInfo(status=status, end_time_secs=time.time())
    return [_summary("session_end_info", session_end_info=end)]


def _summary(tag: str, **content: Any) -> Any:
    hparams, summary_of = _proto("plugin_hparams"), _proto("summary")
    data = hparams.HParamsPluginData(version=0, **content).SerializeToString()
    plugin = summary_of.SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    value = summary_of.Summary.Value(tag=f"_hparams_/{tag}", metadata=summary_of.SummaryMetadata(plugin_data=plugin))
    return summary_of.Summary(value=[value])


def _proto(name: str) -> Any:
    return importlib.import_module(f"tensorboardX.proto.{name}_pb2")
