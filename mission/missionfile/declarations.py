"""Check the declarations of a phase for its agent, and the requirements of a learner's settings on the phase."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mission.errors import PluginError
from mission.learner import LearnerConfig
from mission.missionfile.history import stacked_names
from mission.phase import Environment, ObservationEntry

MOST_ENTRIES = 4096  # of an observation, an action, and the floats of a hand-over


def check_signs_and_events(error: Callable[..., PluginError], env: Environment) -> None:
    """Check the signs of a mirrored flight, and the names of the actions that are times to an event."""
    sizes = (len(env.observation_names), len(env.action_names))
    signs = env.mirror
    if signs is not None and not (
        isinstance(signs, tuple)
        and len(signs) == 2
        and all(isinstance(part, tuple) for part in signs)
        and tuple(map(len, signs)) == sizes
        and all(type(sign) in (int, float) and abs(sign) == 1 for part in signs for sign in part)
    ):
        expected = "mirror to be None or two tuples of signs, 1 or -1: {} of the observation, {} of the action"
        raise error(expected.format(*sizes), repr(signs))
    events = env.event_actions
    known = isinstance(events, tuple) and all(name in env.action_names for name in events)
    if not known or len({*events}) < len(events):
        raise error(f"event_actions to be a tuple of actions ({', '.join(env.action_names)})", repr(events))


def check_observation(error: Callable[..., PluginError], env: Environment, channels: Collection[str]) -> None:
    """Check the descriptions of the observation, and the channels of which it is a function."""
    entries, names = env.observation_entries, env.observation_names
    if entries and not (len(entries) == len(names) and all(isinstance(one, ObservationEntry) for one in entries)):
        expected = f"observation_entries to be {len(names)} of mission.ObservationEntry, or empty"
        raise error(expected, f"{len(entries)}: {entries[0]!r}, ...")
    inputs = env.observation_inputs
    if not isinstance(inputs, tuple) or not {*inputs} <= {*channels} or len({*inputs}) < len(inputs):
        expected = f"observation_inputs to be a tuple of telemetry channels ({', '.join(channels)})"
        raise error(expected, repr(inputs))


def check_learner(error: Callable[..., PluginError], env: Environment, learner: LearnerConfig) -> None:
    """Check that the phase has what the settings of its learner need."""
    names = stacked_names(env.observation_names, learner.history)
    if len(names) > MOST_ENTRIES:
        expected = f"at most {MOST_ENTRIES:,} observations at once, since sac.history is {learner.history}"
        raise error(expected, f"{len(names):,}", "lower sac.history")
    if len({*names}) < len(names):
        expected = "observation_names that differ from those of earlier control steps, NAME[-1]"
        raise error(expected, repr(env.observation_names), "rename them, or set sac.history: 1")
    lacks = learner.lacks(env)
    if lacks is not None:
        expected, remedy = lacks
        raise error(expected, "none", f"declare it on the Environment, or {remedy}")
