"""How a step moves: the moves, and the one table that joins the states. The diagram in the docs is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from orchestrator.core.model import NEVER, Step
from orchestrator.core.vocabulary import StepState

_S = StepState


class Move(StrEnum):
    """The moves a step can make."""

    RELEASE = "release"
    """Its needs are settled."""
    CLAIM = "claim"
    """A worker took it, under a lease."""
    FINISH = "finish"
    PARK = "park"
    BACK_OFF = "back off"
    GIVE_UP = "give up"
    LOSE = "lose"
    """Its lease ran out; it is tried again, alone."""
    HAND_BACK = "hand back"
    WAKE = "wake"
    """Its time came, a report came, or an operator asked for a retry."""
    HOLD = "hold"
    """The request was paused."""
    SETTLE = "settle"
    """Ended without its system: skipped, done by hand, dropped, or inherited."""


TRANSITIONS: Final[Mapping[tuple[StepState, Move], StepState]] = {
    (_S.WAITING, Move.RELEASE): _S.READY,
    (_S.WAITING, Move.SETTLE): _S.DONE,
    (_S.READY, Move.CLAIM): _S.RUNNING,
    (_S.READY, Move.HOLD): _S.PARKED,
    (_S.READY, Move.SETTLE): _S.DONE,
    (_S.RUNNING, Move.FINISH): _S.DONE,
    (_S.RUNNING, Move.PARK): _S.PARKED,
    (_S.RUNNING, Move.BACK_OFF): _S.PARKED,
    (_S.RUNNING, Move.GIVE_UP): _S.ATTENTION,
    (_S.RUNNING, Move.LOSE): _S.READY,
    (_S.RUNNING, Move.HAND_BACK): _S.READY,
    (_S.PARKED, Move.WAKE): _S.READY,
    (_S.PARKED, Move.SETTLE): _S.DONE,
    (_S.ATTENTION, Move.WAKE): _S.READY,
    (_S.ATTENTION, Move.SETTLE): _S.DONE,
}


class Impossible(ValueError):
    """The state forbids what was asked; the message says why, for an operator."""


def move(step: Step, how: Move, **changes: Any) -> Step:
    """The step after a move; raises ``Impossible`` when the table has no such move."""
    to = TRANSITIONS.get((step.state, how))
    if to is None:
        raise Impossible(f"step {step.ordinal} ({step.name} in {step.system}) is {step.state}: it cannot {how}")
    if to is not _S.RUNNING:
        changes = {"token": None, **changes}
    if to is not _S.PARKED:
        changes = {"due": NEVER, "parked_for": None, "waiting_on": "", **changes}
    return replace(step, state=to, **changes)
