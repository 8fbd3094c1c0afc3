"""Going on: what a settle makes ready is taken by the same transaction, where the same worker would take it next.

A chain of quick steps then costs a transaction for each of its links instead of two, and a step is written when it
begins and when it ends, not when it becomes ready as well. Nobody is passed by: only what a claim would take first is
taken, and whatever keeps claims off a system keeps this off, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from uuid import UUID, uuid4

from orchestrator.core.model import Run, Step
from orchestrator.core.transitions import Move, move
from orchestrator.core.vocabulary import StepState
from orchestrator.store.claims import Claimed, Firsts


@dataclass(frozen=True, slots=True)
class Onward:
    """What a worker would take next, if a settle of its made it ready."""

    room: Mapping[str, int]
    """System → steps that it would take. Only systems without limits: there a claim has more to ask."""
    lease: timedelta
    ranks: Mapping[UUID, datetime]
    """Of the requests concerned, in order of claiming."""
    tokens: Mapping[str, UUID] = field(init=False)
    """System → token of the lease. The same in each attempt of a settle: what one took is found by the next."""

    def __post_init__(self) -> None:
        """Draw the tokens."""
        object.__setattr__(self, "tokens", {system: uuid4() for system in self.room})


@dataclass(frozen=True, slots=True)
class Following:
    """What was taken."""

    taken: Mapping[str, Sequence[Claimed]]
    """By system."""
    holds: bool
    """Whether any legal hold is in force."""
    by: str
    """The id of the transaction that took it."""
    runs: Mapping[UUID, Run]
    """The runs concerned."""


Candidates = Sequence[tuple[datetime, Run, Sequence[Step]]]
"""Runs with what may be taken in them, in order of claiming, each with its rank."""


def take(found: Candidates, onward: Onward, firsts: Firsts) -> Following | None:
    """Take what may be taken of what was found. ``firsts``: who stands first in its systems."""
    room = dict(onward.room)
    taken: dict[str, list[Claimed]] = {}
    runs: dict[UUID, Run] = {}
    moved: dict[tuple[int, ...], tuple[Step, ...]] = {}
    for rank, run, steps in found:
        mine = []
        for step in steps:
            if step.state is StepState.RUNNING or _free(step.system, (rank, run.request), firsts, room):
                room[step.system] -= 1
                mine.append(step)
        if not mine:
            continue
        key = id(run.steps), *(s.ordinal for s in mine)
        if key not in moved:
            moved[key] = _moved(run, mine, onward)
        runs[run.request] = run.with_steps(moved[key])
        for step in mine:
            claimed = Claimed(run.request, onward.tokens[step.system], moved[key][step.ordinal], run.deadline, rank)
            taken.setdefault(step.system, []).append(claimed)
    return Following(taken, firsts.holds, firsts.by, runs) if taken else None


def candidates(runs: Iterable[tuple[Run, Run]], onward: Onward) -> Candidates:
    """What was waiting before and is ready after: the runs are locked, so nobody else can have it.

    Where something was ready before, nothing is taken: a claim on both has more people to a call. What an earlier
    attempt of this settle took, of whose end nobody was told, is found again.
    """
    found: list[tuple[datetime, Run, list[Step]]] = []
    known: dict[tuple[int, int], tuple[list[Step], bool]] = {}  # runs that went the same way share their steps
    beside = False
    for before, run in runs:
        key = id(before.steps), id(run.steps)
        if key not in known:
            known[key] = _of(before, run, onward)
        steps, ready = known[key]
        beside = beside or ready
        if steps:
            found.append((onward.ranks[run.request], run, steps))
    if beside:
        mine = ((rank, run, [s for s in steps if s.state is StepState.RUNNING]) for rank, run, steps in found)
        found = [one for one in mine if one[2]]
    return sorted(found, key=itemgetter(0))


def _of(before: Run, after: Run, onward: Onward) -> tuple[list[Step], bool]:
    """What can be taken of a run; and whether something was ready in it before."""
    its: list[Step] = []
    beside = False
    for old, step in zip(before.steps, after.steps, strict=True):
        if step.system not in onward.room:
            continue
        if step.state is StepState.READY:
            if old.state is StepState.WAITING:
                its.append(step)
            else:
                beside = True
        elif step.state is StepState.RUNNING and step.token == onward.tokens[step.system]:
            its.append(step)
    return its, beside


def _free(system: str, place: tuple[datetime, UUID], firsts: Firsts, room: Mapping[str, int]) -> bool:
    """Whether nothing keeps claims off the system, nobody stands before this one, and there is room."""
    if system not in firsts.places or room[system] <= 0:
        return False
    first = firsts.places[system]
    return first is None or place <= first


def _moved(run: Run, mine: Sequence[Step], onward: Onward) -> tuple[Step, ...]:
    steps = list(run.steps)
    for step in mine:
        if step.state is StepState.READY:
            token, attempt = onward.tokens[step.system], step.attempt + 1
            steps[step.ordinal] = move(step, Move.CLAIM, token=token, attempt=attempt)
    return tuple(steps)
