"""Going on: what a settle makes ready is taken by the same transaction, where the same worker would take it next.

A chain of quick steps then costs a transaction for each of its links instead of two, and a step is written when it
begins and when it ends, not when it becomes ready as well. Nobody is passed by: only what a claim would take first is
taken, and whatever keeps claims off a system keeps this off, too.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import itemgetter
from uuid import UUID, uuid4

from sqlalchemy import Connection

from orchestrator.core.model import Run, Step
from orchestrator.core.transitions import Move, move
from orchestrator.core.vocabulary import StepState
from orchestrator.stages.secrets import Facts
from orchestrator.store import claims
from orchestrator.store.claims import Claimed
from orchestrator.store.runs import Remembered

Taken = Mapping[str, Sequence[Claimed]]
"""System → steps."""


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
    """What was taken, and what is known of its requests."""

    taken: Taken
    """What was taken of each system."""
    holds: bool
    """Whether any legal hold is in force."""
    runs: Remembered
    """The runs concerned, as they were left."""
    facts: Facts = field(default_factory=dict)


def take(
    tx: Connection, before: Mapping[UUID, Run], after: MutableMapping[UUID, Run], onward: Onward
) -> Following | None:
    """Take what was waiting ``before`` and is ready ``after``; ``after`` is changed.

    The runs are locked, so nobody else can have what was waiting in them.
    """
    known: dict[tuple[int, int], list[Step]] = {}  # by the identity of steps, which runs that went one way share
    found: list[tuple[datetime, Run, list[Step]]] = []
    for id_, run in after.items():
        key = id(before[id_].steps), id(run.steps)
        if key not in known:
            known[key] = _fresh(before[id_], run, onward)
        if known[key]:
            found.append((onward.ranks[id_], run, known[key]))
    if not found:
        return None
    found.sort(key=itemgetter(0))
    firsts = claims.firsts(tx, {s.system for _, _, steps in found for s in steps})
    room = dict(onward.room)
    taken: dict[str, list[Claimed]] = {}
    moved: dict[tuple[int, ...], tuple[Step, ...]] = {}
    for rank, run, steps in found:
        mine = [s for s in steps if s.state is StepState.RUNNING or _free(s.system, rank, firsts.ranks, room)]
        if not mine:
            continue
        key_ = id(run.steps), *(s.ordinal for s in mine)
        if key_ not in moved:
            moved[key_] = _moved(run, mine, onward)
        after[run.request] = changed = replace(run, steps=moved[key_])
        for step in mine:
            room[step.system] -= 1
            claimed = Claimed(run.request, onward.tokens[step.system], changed.steps[step.ordinal], run.deadline, rank)
            taken.setdefault(step.system, []).append(claimed)
    concerned = {c.request for its in taken.values() for c in its}
    return (
        Following(taken, firsts.holds, Remembered(firsts.by, {id_: after[id_] for id_ in concerned})) if taken else None
    )


def _free(system: str, rank: datetime, first: Mapping[str, datetime | None], room: Mapping[str, int]) -> bool:
    """Whether nothing keeps claims off the system, nobody stands before this one, and there is room."""
    if system not in first or room[system] <= 0:
        return False
    before = first[system]
    return before is None or rank <= before


def _fresh(before: Run, after: Run, onward: Onward) -> list[Step]:
    """Steps that became ready; and those which an earlier attempt of this settle took, of whose end nobody was told."""
    return [
        b
        for a, b in zip(before.steps, after.steps, strict=True)
        if b.system in onward.room
        and (
            (a.state is StepState.WAITING and b.state is StepState.READY)
            or (b.state is StepState.RUNNING and b.token == onward.tokens[b.system])
        )
    ]


def _moved(run: Run, mine: list[Step], onward: Onward) -> tuple[Step, ...]:
    steps = list(run.steps)
    for step in mine:
        if step.state is StepState.READY:
            token, attempt = onward.tokens[step.system], step.attempt + 1
            steps[step.ordinal] = move(step, Move.CLAIM, token=token, attempt=attempt)
    return tuple(steps)
