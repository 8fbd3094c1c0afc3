"""Runs that go the same way are advanced once.

In a batch of a thousand most runs stand alike and are told the same. What the core makes of a run depends on nothing of
its request, so what it made of one is what it makes of all that are alike: their steps are the same values, and so is
what has happened.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

from orchestrator.core import events as ev
from orchestrator.core import machine
from orchestrator.core.commands import Command
from orchestrator.core.model import Run


@dataclass(frozen=True, slots=True)
class _Known:
    """One that was advanced. ``run`` and ``event`` are kept so that no other value can take their place in memory."""

    run: Run
    event: ev.Finished
    after: Run
    commands: tuple[Command, ...]


class Alike:
    """``machine.advance`` for many runs at one moment. Values are told apart by identity: equal ones should be one."""

    def __init__(self, now: datetime) -> None:
        """``now``: as the database's clock tells it."""
        self._now = now
        self._known: dict[Hashable, _Known] = {}

    def advance(self, run: Run, event: ev.Event) -> tuple[Run, tuple[Command, ...]]:
        """The same as ``machine.advance``, and what it raises."""
        if type(event) is not ev.Finished:  # others come one by one, or with something that differs in each
            return machine.advance(run, event, self._now)
        key = (
            id(run.steps),
            run.right,
            run.paused,
            run.stopping,
            run.stop_reason,
            run.resolution,
            event.ordinal,
            id(event.token),
            id(event.result),
        )
        known = self._known.get(key)
        if known is None:
            after, commands = machine.advance(run, event, self._now)
            self._known[key] = _Known(run, event, after, commands)
            return after, commands
        after = known.after
        return (
            Run(
                run.request,
                run.right,
                after.steps,
                run.deadline,
                after.paused,
                after.stopping,
                after.stop_reason,
                after.resolution,
            ),
            known.commands,
        )
