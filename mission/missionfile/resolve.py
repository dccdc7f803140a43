"""From a mission file to checked phases: plugin, parameters, learner settings, contract, links, digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from mission.errors import InputError, MissionError, PluginError, exception_text, run_plugin_code
from mission.learner import LEARNERS, LearnerConfig, learner_name
from mission.machine.stages import tell
from mission.missionfile.arguments import given_mission
from mission.missionfile.contract import Shapes, check_contract, check_links
from mission.missionfile.held_out import check_gate_starts
from mission.missionfile.history import with_history
from mission.missionfile.hooks import PhaseHooks
from mission.missionfile.models import Location, MissionFile, PhaseEntry
from mission.missionfile.once import once
from mission.missionfile.phases import Phase, PhaseConfiguration, flown_environment, phase_class
from mission.missionfile.pilots import unguarded
from mission.missionfile.plugins import (
    SPEC_PREFIX,
    Listing,
    build_environment,
    find_plugin,
    hook_caller,
    installed_sources,
    list_plugins,
    load_local,
    load_module,
    local_path,
    local_sources,
    refuse_spec,
)
from mission.missionfile.reading import explain, unknown_key
from mission.missionfile.sources import Sources
from mission.missionfile.spec_sources import SpecSources
from mission.missionfile.wide import check_wide, merge_params, wide_days
from mission.phase import LOCAL_FILE, LOCAL_SOURCE, Environment, PhaseSpec, PluginOrigin


def resolve_mission(mission: MissionFile, *, allow_local_plugins: bool = False) -> tuple[Phase, ...]:
    """Load every plugin, validate its parameters, and check its shapes and the links; nothing is compiled.

    Raises:
      MissionError: the first error, with its position in the mission file.
    """
    mission = given_mission(mission, "resolve_mission")
    listings = list_plugins()
    plugins = [load_spec(mission, i, allow_local_plugins, listings) for i in range(len(mission.phases))]
    _check_shared_params(mission, [plugin.spec for plugin in plugins])
    phases = tuple(_resolve_phase(mission, i, plugin) for i, plugin in enumerate(plugins))
    for i, phase in enumerate(phases):
        for channel in phase.entry.gate.channels if phase.entry.gate else ():
            if channel not in phase.channels:
                where = mission.source.where(("phases", i, "gate", "channels", channel))
                raise unknown_key(where, channel, list(phase.channels))
    phases = judged(mission, phases)
    check_links(phases)
    check_gate_starts(mission, phases)
    return phases


def judged(mission: MissionFile, phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Return phases that fail flights at their hand-overs according to `mission.judge`.

    Raises:
      InputError: the mission is to judge, but no phase before the last one names the causes of its box.
    """
    if mission.judge == "box":
        return tuple(dataclasses.replace(phase, tolerated=()) for phase in phases)
    if not any(phase.environment.box_causes for phase in phases[:-1]):
        raise InputError(
            mission.source.where(("chain", "judge")),
            expected="a phase before the last one that names the causes of its box (box_causes)",
            found="none",
            remedy="remove judge: mission, or name them in the plugin",
        )
    tolerant = (dataclasses.replace(phase, tolerated=phase.environment.box_causes) for phase in phases[:-1])
    return (*tolerant, phases[-1])


class LoadedPlugin(NamedTuple):
    """A plugin's record, its origin, and the files that it depends on, as far as they were read."""

    origin: PluginOrigin
    spec: PhaseSpec
    sources: Sources


def load_spec(
    mission: MissionFile, index: int, allow_local: bool = False, listings: Sequence[Listing] | None = None
) -> LoadedPlugin:
    """Return the plugin that phase `index` names; its hash is complete once the phase is resolved."""
    entry = mission.phases[index]
    where = mission.source.where(("phases", index, "plugin"))
    if (spec := mission.source.specs.get(entry.plugin)) is not None:
        name = entry.plugin.removeprefix(SPEC_PREFIX)
        sources = SpecSources(spec, name)
        return _loaded(spec, _hashed(PluginOrigin(name, LOCAL_SOURCE, "", ""), sources), sources, where)
    refuse_spec(entry.plugin, where)
    path = local_path(entry.plugin, mission.folder, allow_local, where)
    if path is None:
        return load_installed(entry.plugin, where, listings, mission.folder)
    module, sources = load_local(path, where), local_sources(path)
    return _spec(module, _hashed(PluginOrigin(path.stem, LOCAL_FILE, "", ""), sources), sources, where)


def load_installed(
    reference: str, where: str, listings: Sequence[Listing] | None = None, folder: Path | None = None
) -> LoadedPlugin:
    """Return an installed plugin; `folder` is that of the mission file that names it."""
    listing = find_plugin(reference, where, listings=listings, folder=folder)
    module = load_module(listing, where)
    sources = installed_sources(listing, module)
    origin = PluginOrigin(listing.name, listing.distribution, listing.version, "")
    return _spec(module, _hashed(origin, sources), sources, where)


def _hashed(origin: PluginOrigin, sources: Sources) -> PluginOrigin:
    """Return an origin with the hash of the files read so far; without a distribution the hash is also the version."""
    found = sources.hash()
    version = found[:12] if origin.local else origin.version
    return dataclasses.replace(origin, version=version, source_sha256=found)


def _spec(module: Any, origin: PluginOrigin, sources: Sources, where: str) -> LoadedPlugin:
    hook = hook_caller(module, PhaseHooks, "mission_phase", str(origin), where)
    specs = run_plugin_code(where, f"{origin}: mission_phase to work", partial(sources.listen, hook))
    spec = specs[0] if specs else None
    if not isinstance(spec, PhaseSpec):
        raise PluginError(
            where,
            expected=f"{origin}: mission_phase to return a PhaseSpec",
            found=type(spec).__name__,
            remedy="return mission.PhaseSpec(...)",
        )
    return _loaded(spec, origin, sources, where)


def _loaded(spec: PhaseSpec, origin: PluginOrigin, sources: Sources, where: str) -> LoadedPlugin:
    check_record(origin, spec, where)
    return LoadedPlugin(origin, spec, sources)


def check_record(origin: PluginOrigin, spec: PhaseSpec, where: str) -> None:
    """Reject a PhaseSpec whose fields have the wrong types."""

    def error(expected: str, found: object) -> PluginError:
        return PluginError(where, expected=f"{origin}: {expected}", found=repr(found), remedy="correct the PhaseSpec")

    if not (isinstance(spec.params, type) and issubclass(spec.params, BaseModel)):
        raise error("params to be a pydantic model class", spec.params)
    if spec.sac is not None and not (isinstance(spec.sac, LearnerConfig) and learner_name(spec.sac)):
        raise error(f"sac to hold the settings of a learner ({', '.join(LEARNERS)}), or None", spec.sac)
    if not callable(spec.environment) or not callable(spec.limits):
        raise error("environment and limits to be functions of the parameters", spec.environment)
    if spec.report is not None and not callable(spec.report):
        raise error("report to be a function of the records, or None", spec.report)
    if spec.sac is not None and not callable(spec.reward):
        raise error("reward to be a function of the parameters, since sac is given", spec.reward)


def _check_shared_params(mission: MissionFile, specs: Sequence[PhaseSpec]) -> None:
    declared = sorted({name for spec in specs for name in spec.params.model_fields})
    for key in mission.params:
        if key not in declared:
            raise unknown_key(mission.source.where(("params", key)), key, declared)


def _resolve_phase(mission: MissionFile, index: int, plugin: LoadedPlugin) -> Phase:
    origin, spec, sources = plugin
    entry, at = mission.phases[index], ("phases", index)
    shared = {k: v for k, v in mission.params.items() if k in spec.params.model_fields and k not in entry.params}
    given: dict[str, JsonValue] = to_jsonable_python(shared | entry.params, fallback=str)

    def build() -> Phase:
        tell(entry.name, "checking")
        params = _validate(mission, spec.params, shared | entry.params, (*at, "params"), str(origin), shared)
        learner = _learner(mission, index, spec)
        where, where_policy = mission.source.where((*at, "plugin")), mission.source.where((*at, "policy"))
        check = partial(_check_once, params)
        phase = build_phase(entry, _hashed(origin, sources), spec, params, learner, where, where_policy, check)
        return _with_wide_days(mission, index, phase, spec, shared | entry.params, shared)

    written = [given] if not entry.training_params else [given, to_jsonable_python(entry.training_params, fallback=str)]
    phase = sources.listen(build, json.dumps(written, sort_keys=True))
    modules = sources.modules()
    files = tuple(str(path) for path in (*modules, *sources.data(modules)))
    return dataclasses.replace(phase, origin=_hashed(origin, sources), given=given, folder=mission.folder, files=files)


def _check_once(params: BaseModel, where: str, origin: PluginOrigin, *contract: Any) -> Shapes:
    """Check a contract, unless the same plugin passed with the same parameters before."""
    identity = ["contract", str(origin), origin.source_sha256, params.model_dump_json(), contract[-1]]
    return once(identity, origin, lambda: check_contract(where, origin, *contract))


def _with_wide_days(
    mission: MissionFile, index: int, phase: Phase, spec: PhaseSpec, given: dict[str, Any], shared: Collection[str]
) -> Phase:
    """Return a phase with its wide training dispersions, if its entry has any.

    Args:
      mission, index: its entry.
      phase, spec: what it was resolved to, and the plugin's record.
      given: its parameters as the mission file states them.
      shared: those of them that are the mission's own.
    """
    entry, at = mission.phases[index], ("phases", index, "training_params")
    if not entry.training_params:
        return phase
    where = mission.source.where(at)
    if spec.sac is None:
        raise InputError(
            where, expected="no training_params: this phase is never trained", found="some", remedy="remove them"
        )
    data = merge_params(phase.params, given, entry.training_params)
    own = [name for name in shared if name not in entry.training_params]
    params = _validate(mission, spec.params, data, at, str(phase.origin), own)
    wide = wide_days(where, phase, spec, params, entry.training_share)
    texts = [one.model_dump_json() for one in (phase.params, params)]
    identity = ["wide", str(phase.origin), phase.origin.source_sha256, *texts]
    once(identity, phase.origin, lambda: check_wide(where, phase, wide, spec))
    return dataclasses.replace(phase, wide=wide)


def build_phase(
    entry: PhaseEntry,
    origin: PluginOrigin,
    spec: PhaseSpec,
    params: BaseModel,
    learner: LearnerConfig | None,
    where: str,
    where_policy: str,
    check: Callable[..., Shapes] = check_contract,
) -> Phase:
    """Return the resolved phase of a plugin's record, after checking its contract.

    Args:
      entry: the phase in the mission file.
      origin, spec: the plugin's record and where it comes from.
      params: validated parameters.
      learner: settings of the agent; None if the plugin has none.
      where, where_policy: places of the plugin and of the policy in the mission file, for messages.
      check: checks the contract, by default each time.

    Raises:
      PluginError: the plugin does not work, violates the contract, or has no guide although one is to fly.
    """
    environment = build_environment(where, origin, spec, params)
    reward = run_plugin_code(where, f"{origin}: reward to work", partial(spec.reward, params)) if spec.reward else None
    limits = run_plugin_code(where, f"{origin}: limits to work", lambda: tuple(spec.limits(params)))
    run_plugin_code(where, f"{origin}: parameters that can be kept as JSON", params.model_dump_json)
    _check_pilot(entry.policy, origin, environment, learner, where_policy)
    shapes = check(where, origin, environment, reward, limits, learner)
    common: dict[str, Any] = {
        "name": entry.name,
        "origin": origin,
        "params": params,
        "environment": environment,
        "limits": limits,
        "entry": entry,
        "report": spec.report,
        "channels": tuple(shapes.telemetry),
        "accepts": shapes.start,
        "leaves": shapes.leave,
    }
    if learner is not None and reward is not None:
        environment, reward = with_history(environment, reward, learner.history)
    kind = phase_class(entry.policy, learner, reward)
    common["environment"] = flown_environment(kind, environment, learner, entry.policy)
    return kind(reward=reward, learner=learner, guide_environment=environment, **common)


def _check_pilot(
    pilot: str, origin: PluginOrigin, environment: Environment, learner: LearnerConfig | None, where: str
) -> None:
    """Reject a pilot that the plugin cannot have; a phase without a learner and without actions needs none."""
    if learner is None and pilot not in ("agent", "guide"):
        raise InputError(
            where,
            expected=f"policy: guide, since {origin} has no learner and so no networks",
            found=pilot,
            remedy="remove policy:, or set policy: guide",
        )
    if pilot != unguarded(pilot) and environment.guide is None:
        raise InputError(
            where,
            expected=f"{origin} to offer a guide, which takes over where the guard says so",
            found="no guide(state) on its environment",
            remedy=f"set policy: {unguarded(pilot)}",
        )
    if learner is not None and pilot != "guide":
        return
    if environment.guide is None and len(environment.action_names) > 0:
        raise PluginError(
            where,
            expected=f"{origin} to offer a guide",
            found="no guide(state) on its environment",
            remedy="set policy: agent",
        )


def _learner(mission: MissionFile, index: int, spec: PhaseSpec) -> LearnerConfig | None:
    """Return the plugin's settings (or a preset) with the mission file's overrides applied."""
    overrides = dict(mission.phases[index].sac)
    at: Location = ("phases", index, "sac")
    where = mission.source.where(at)
    if spec.sac is None:
        if overrides:
            raise InputError(
                where, expected="no sac settings: this phase is flown by its guide", found="some", remedy="remove sac:"
            )
        return None
    presets, preset = spec.sac.presets, overrides.pop("preset", None)
    if preset is not None and (not isinstance(preset, str) or preset not in presets):
        raise InputError(
            mission.source.where((*at, "preset")),
            expected=f"one of {', '.join(presets) or '(none)'}",
            found=repr(preset),
            remedy="name a preset",
        )
    base = dict(presets[preset] if preset is not None else spec.sac.model_dump())
    for pair in spec.sac.alternatives:
        given = [key for key in pair if overrides.get(key) is not None]
        if len(given) > 1:
            raise InputError(
                mission.source.where((*at, given[1])),
                expected=f"{given[1]} or {given[0]}, which mean the same in two ways",
                found="both",
                remedy="remove one of them",
            )
        if given:  # whichever of the two the plugin sets
            base = {key: value for key, value in base.items() if key not in pair}
    return _validate(mission, type(spec.sac), _merge(base, overrides), at, "the engine")


def merged_settings(
    mission: MissionFile, learner: LearnerConfig, changes: Sequence[dict[str, Any]], at: Location
) -> LearnerConfig:
    """Return a learner's settings with overrides applied, the later ones last.

    Raises:
      InputError: a setting that does not exist or does not hold, with its place in `at`.
    """
    data = learner.model_dump()
    for change in changes:
        data = _merge(data, change)
    return _validate(mission, type(learner), data, at, "the engine")


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _validate(
    mission: MissionFile,
    model: type[BaseModel],
    data: dict[str, Any],
    at: Location,
    owner: str,
    shared: Collection[str] = (),
) -> Any:
    """Validate `data` as the model; an error names its place in `at`, or in the mission's own parameters (`shared`)."""
    if model.model_config.get("extra") != "allow":  # unknown keys are errors, whatever the plugin's model says
        known = {f.alias or name for name, f in model.model_fields.items()} | set(model.model_fields)
        for key in data:
            if key not in known:
                raise unknown_key(mission.source.where((*at, key)), key, sorted(known))
    try:
        return model.model_validate(data, context={"folder": mission.folder})
    except ValidationError as error:
        first = error.errors()[0]["loc"]
        place = ("params",) if first and first[0] in shared else at
        raise explain(error, mission.source, place, model) from None
    except MissionError:
        raise
    except Exception as error:
        raise PluginError(
            mission.source.where(at),
            expected=f"{owner}: {model.__name__} to validate its parameters",
            found=exception_text(error),
            remedy="correct the parameters, or the plugin's validator",
        ) from error


def digest(configuration: Sequence[PhaseConfiguration]) -> str:
    """Return the SHA-256 of the validated configuration of a chain of phases."""
    data = [phase.model_dump(mode="json") for phase in configuration]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def first_change(stored: Any, current: Any, at: str = "") -> str:
    """Return the path and both values of the first difference between two configurations; empty if none."""
    if isinstance(stored, dict) and isinstance(current, dict):
        for key in [*stored, *[k for k in current if k not in stored]]:
            change = first_change(stored.get(key), current.get(key), f"{at}.{key}" if at else key)
            if change:
                return change
        return ""
    if isinstance(stored, list) and isinstance(current, list) and len(stored) == len(current):
        for i, (a, b) in enumerate(zip(stored, current, strict=True)):
            label = a.get("name", i) if isinstance(a, dict) else i
            change = first_change(a, b, f"{at}[{i}]" if at else f"phases.{label}")
            if change:
                return change
        return ""
    if isinstance(stored, list) and isinstance(current, list):
        stored, current = (
            [item.get("name", item) if isinstance(item, dict) else item for item in side] for side in (stored, current)
        )
    return "" if stored == current else f"{at or 'phases'} was {json.dumps(stored)}, is {json.dumps(current)}"
