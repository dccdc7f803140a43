"""Find the formats of trajectories by name, check their options, and write files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mission.errors import InputError, PluginError, machine_errors, run_plugin_code
from mission.missionfile.arguments import given_path
from mission.missionfile.hooks import TRAJECTORY_GROUP, TrajectoryFormat, TrajectoryHooks
from mission.missionfile.plugins import find_plugin, hook_caller, list_plugins, load_module
from mission.missionfile.reading import parse_yaml
from mission.report.folder import write_file
from mission.report.trajectories.record import Trajectory
from mission.report.trajectories.tables import TABLES


def write_trajectories(
    trajectories: Sequence[Trajectory],
    folder: str | Path,
    formats: Sequence[str] = ("csv",),
    options: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Write flights into a folder and return the paths of the files; files of the same name are replaced.

    Args:
      trajectories: from `fly_mission(mission, flights=[...])`.
      folder: output folder; created if it does not exist.
      formats: "csv", "parquet" (extra `data`), or those of plugins (docs/trajectories.md).
      options: options of the formats; an option applies to every format that has it.

    Raises:
      MissionError: no such format or option, or a flight that a format cannot represent (2); a folder that is not
        writable (3).
    """
    flights = tuple(trajectories) if isinstance(trajectories, Iterable) else (trajectories,)
    others = [one for one in flights if not isinstance(one, Trajectory)]
    if others or not flights:
        raise InputError(
            "write_trajectories",
            expected="the flights of fly_mission(mission, flights=[...])",
            found=type(others[0]).__name__ if others else "none",
            remedy="write write_trajectories(fly_mission(mission, flights=[0, 1]), FOLDER)",
        )
    names = [formats] if isinstance(formats, str) else formats  # a str would be the names of its letters
    return Writer(names, options).write(flights, given_path(folder, "write_trajectories"))


class Writer:
    """Writes trajectories in one or more formats; made before flying, so that what is wrong is said at once."""

    def __init__(self, formats: Sequence[str] = ("csv",), options: Mapping[str, Any] | None = None) -> None:
        """Load formats by name and set their options; an option applies to every format that has it.

        Raises:
          InputError: an option that no format has, or a wrong value.
          PluginError: no such format, or one that cannot be loaded.
        """
        found = {name: load_format(name) for name in dict.fromkeys(formats)}
        options = options or {}
        for key in options:
            known = sorted({key for one in found.values() for key in _keys(one)})
            if key not in known:
                raise InputError(
                    f"--format-set {key}",
                    expected=f"an option of {', '.join(found)}: {', '.join(known) or 'they have none'}",
                    found=f'"{key}"',
                    remedy="correct or remove it",
                )
        self.formats = {name: (one, _options(name, one, options)) for name, one in found.items()}

    @property
    def needs_channels(self) -> bool:
        """Whether a format cannot hold every phase."""
        return any(one.channels for one, _ in self.formats.values())

    def check(self, channels: Mapping[str, Sequence[str]]) -> None:
        """Check that every format can hold every phase.

        Args:
          channels: name of a phase -> its telemetry channels.

        Raises:
          InputError: names the first phase that lacks what a format needs.
        """
        for name, (one, _) in self.formats.items():
            for phase, has in channels.items():
                if one.channels and not any(set(needed) <= set(has) for needed in one.channels):
                    raise InputError(
                        f"--format {name}",
                        expected=f"phases with the channels {'; or '.join(', '.join(needed) for needed in one.channels)}",
                        found=f'phase "{phase}" with {", ".join(has) or "no channels"}',
                        remedy="remove this format, or add these channels to the phase's telemetry; csv holds any phase",
                    )

    def write(self, trajectories: Sequence[Trajectory], folder: Path) -> tuple[Path, ...]:
        """Write flights into a folder, replacing files of the same name, and return the paths.

        Raises:
          InputError: a format cannot hold these flights.
          MachineError: the folder cannot be written.
        """
        written: list[Path] = []
        for name, (one, options) in self.formats.items():
            where = f"--format {name}"

            def files(one: TrajectoryFormat = one, options: BaseModel | None = options) -> dict[str, bytes]:
                made = one.files(tuple(trajectories), options)
                return {file: text.encode() if isinstance(text, str) else bytes(text) for file, text in made.items()}

            contents = run_plugin_code(where, f"the format {name} to write the flights", files)
            for file, content in contents.items():
                if Path(file).name != file:
                    expected, remedy = f"the format {name} to name files, not paths", "fix the plugin"
                    raise PluginError(where, expected=expected, found=file, remedy=remedy)
                with machine_errors(folder, "a folder to write to", "choose another --trajectory"):
                    folder.mkdir(parents=True, exist_ok=True)
                    write_file(folder / file, content)
                written.append(folder / file)
        return tuple(written)


def load_format(name: str) -> TrajectoryFormat:
    """Return a format by its name: csv or parquet, or that of an entry point.

    Raises:
      PluginError: there is none, or it cannot be loaded.
    """
    if name in TABLES:
        return TABLES[name]
    where = f"--format {name}"
    listings = list_plugins(TRAJECTORY_GROUP)
    if name.rpartition(":")[2] not in {row.name for row in listings}:
        names = sorted({*TABLES, *(row.name for row in listings)})
        raise PluginError(
            where,
            expected=f"a format: {', '.join(names)}",
            found=f'"{name}"',
            remedy="correct the name, or install the distribution that has it",
        )
    listing = find_plugin(name, where, TRAJECTORY_GROUP, listings)
    owner = f'format "{name}" of {listing}'
    caller = hook_caller(load_module(listing, where), TrajectoryHooks, "mission_trajectory", owner, where)
    found = run_plugin_code(where, f"{owner}: mission_trajectory to work", lambda: caller()[0])
    if not isinstance(found, TrajectoryFormat):
        expected, remedy = f"{owner}: mission_trajectory to return a TrajectoryFormat", "fix the plugin"
        raise PluginError(where, expected=expected, found=type(found).__name__, remedy=remedy)
    return found


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Return key -> value of options such as "longitude_deg=-80.5"; the values are YAML.

    Raises:
      InputError: no KEY=VALUE, or a key twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key or key in options:
            found = f"{key} twice" if key in options else text
            remedy = "write --format-set longitude_deg=-80.5, each key once"
            raise InputError(f"--format-set {text}", expected="KEY=VALUE", found=found, remedy=remedy)
        options[key] = parse_yaml(value, f"--format-set {text}")[0]
    return options


def _keys(one: TrajectoryFormat) -> tuple[str, ...]:
    return () if one.options is None else tuple(one.options.model_fields)


def _options(name: str, one: TrajectoryFormat, options: Mapping[str, Any]) -> BaseModel | None:
    if one.options is None:
        return None
    own = {key: value for key, value in options.items() if key in _keys(one)}
    try:
        return one.options.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or next(iter(own), "?")
        raise InputError(
            f"--format-set {key}", expected=f"{name}: {first['msg']}", found=str(first["input"]), remedy="correct it"
        ) from None
