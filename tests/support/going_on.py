"""How a worker of the simulation goes on: the real ``onward`` over the model of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from datetime import timedelta
from uuid import UUID

from orchestrator.core.model import Run, Step
from orchestrator.core.vocabulary import StepState
from orchestrator.stages.onward import Following, Onward, candidates, take
from orchestrator.store.claims import Firsts


def onward(run: Run, room: Mapping[str, UUID], most: int, lease: timedelta) -> Onward:
    """``room``: the systems that a worker would go on to, each with the token of the lease; ``most``: steps of each."""
    made = Onward(dict.fromkeys(room, most), lease, {run.request: run.deadline})
    object.__setattr__(made, "tokens", dict(room))  # drawn from the seed
    return made


def go_on(before: Run, after: MutableMapping[UUID, Run], onward: Onward, runs: Iterable[Run]) -> Following | None:
    """What one transaction takes of what it makes ready; ``after`` is changed. ``runs``: all that are stored."""
    found = candidates([(before, after[before.request])], onward)
    if not found:
        return None
    ready = [(run, step) for run in runs for step in run.steps if step.state is StepState.READY]
    following = take(found, onward, Firsts(_first(onward.room, ready), holds=False, by=""))
    if following:
        after.update(following.runs)
    for system, claimed in following.taken.items() if following else ():
        queue = [(run.deadline, run.request, step) for run, step in ready if step.system == system]
        again = before.steps[claimed[0].step.ordinal].state is StepState.RUNNING
        assert again or not any(step.crashes for _, _, step in queue), "what was lost before is claimed alone"
        first = min((place[:2] for place in queue), default=None)
        assert again or first is None or (before.deadline, before.request) <= first, "nobody is passed by"
    return following


def _first(systems: Iterable[str], ready: list[tuple[Run, Step]]) -> dict[str, tuple[object, UUID] | None]:
    """Who stands first in each queue; none of one in which something was lost before."""
    places: dict[str, tuple[object, UUID] | None] = {}
    for system in systems:
        queue = [(run, step) for run, step in ready if step.system == system]
        if not any(step.crashes for _, step in queue):
            places[system] = min(((run.deadline, run.request) for run, _ in queue), default=None)
    return places
