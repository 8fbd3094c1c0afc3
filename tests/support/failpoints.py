"""Processes that stop at a named point: test wiring around the real ones; nothing in production knows of it.

    python -m tests.support.failpoints worker --at mid_settle:wait --folder /tmp/points

starts a worker like any other, but the first process to reach ``mid_settle`` leaves its process id in the file
``/tmp/points/mid_settle`` and waits until ``/tmp/points/mid_settle.go`` appears; ``:kill`` kills it there instead.
``mid_settle:kill:3`` lets two pass first. What the test holds is a ``Failpoint``.

The points, in the order of the work:

* ``before_admit``, ``mid_admit`` (in the transaction), ``after_admit`` (committed, not acknowledged): intake;
* ``before_claim``, ``after_claim`` (committed, no heartbeat yet), ``after_call``, ``mid_settle`` (in the transaction),
  ``after_settle`` (committed, nothing rung): worker; in mid-call a worker is held by the oracle itself;
* ``onward_after_claim`` and so on: the same, but between the links of a chain: in work that a settle took onward;
* ``mid_publish`` (published, not confirmed), ``after_confirm`` (not noted), ``mid_sweep`` (in the transaction): clock.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from orchestrator import settings
from orchestrator.broker.relay import Relay
from orchestrator.cli.processes import run_clock, run_intake, run_worker
from orchestrator.core import events as ev
from orchestrator.messages.envelope import Delivery
from orchestrator.runtime import Runtime
from orchestrator.stages.advance import NOTHING, Advance, Advanced, Happening, Known
from orchestrator.stages.execute import Execute, Worked
from orchestrator.stages.heartbeat import Heartbeat
from orchestrator.stages.intake import Admitted, Intake
from orchestrator.stages.onward import Onward
from orchestrator.stages.secrets import Secrets
from orchestrator.stages.settle import Said, Settle

ONWARD: Final = ("onward_after_claim", "onward_after_call", "onward_mid_settle", "onward_after_settle")
POINTS: Final = {
    "intake": ("before_admit", "mid_admit", "after_admit"),
    "worker": ("before_claim", "after_claim", "after_call", "mid_settle", "after_settle", *ONWARD),
    "clock": ("mid_publish", "after_confirm", "mid_sweep"),
}
PATIENCE = 60.0
"""Seconds that a process waits at a point at most."""


# The process's side. ------------------------------------------------------------------------------------------------


@dataclass
class Points:
    """What happens where. Each point is hit once, by whoever comes first of all processes."""

    folder: Path
    at: Mapping[str, tuple[str, int]]
    """Point → action, and how many pass before."""
    links: int = 0
    """How often the round under way in this process went on."""

    def reach(self, point: str) -> None:
        """Somebody is at a point; and at that of a later link, where the round went on."""
        self._reach(point)
        if self.links:
            self._reach(f"onward_{point}")

    def _reach(self, point: str) -> None:
        action, before = self.at.get(point, ("", 0))
        if not action or self._passed(point) < before:
            return
        mark = self.folder / point
        try:
            with mark.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while not mark.with_suffix(".go").exists() and time.monotonic() < until:
            time.sleep(0.01)

    def _passed(self, point: str) -> int:
        """How many were here before, in all processes."""
        with (self.folder / f"{point}.passed").open("a") as file:
            file.write(".")
            file.flush()
            return os.fstat(file.fileno()).st_size - 1


class _Execute(Execute):
    points: Points

    def work(self, first: str, *others: str, **more: Any) -> Worked:
        self.points.links = 0
        self.points.reach("before_claim")
        return super().work(first, *others, **more)


class _Heartbeat(Heartbeat):
    points: Points

    @contextmanager
    def holding(self, token: UUID) -> Iterator[None]:
        self.points.reach("after_claim")
        with super().holding(token):
            yield


class _Advance(Advance):
    points: Points

    def apply(
        self,
        tx: Connection,
        happenings: Sequence[Happening],
        known: Known = NOTHING,
        onward: Onward | None = None,
        learn: Callable[[Sequence[Happening]], None] = lambda _late: None,
        **named: Any,
    ) -> Advanced:
        def learned(late: Sequence[Happening]) -> None:
            learn(late)
            # The last of what is written: a settle's transaction ends right after it, in the same round trip.
            if any(isinstance(h.event, ev.LeaseExpired) for h in happenings):
                self.points.reach("mid_sweep")
            elif any(isinstance(h.event, ev.Finished) for h in happenings):
                self.points.reach("mid_settle")

        return super().apply(tx, happenings, known, onward, learned, **named)


class _Settle(Settle):
    points: Points

    def settle(self, said: Said, onward: Onward | None = None) -> Advanced:
        self.points.reach("after_call")
        advanced = super().settle(said, onward)
        self.points.reach("after_settle")
        self.points.links += advanced.following is not None
        return advanced


class _Secrets(Secrets):
    points: Points

    def store(self, tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:  # type: ignore[override] # called on self
        super().store(tx, rows)
        self.points.reach("mid_admit")


class _Intake(Intake):
    points: Points

    def admit(self, deliveries: Sequence[Delivery]) -> Admitted:
        self.points.reach("before_admit")
        admitted = super().admit(deliveries)
        self.points.reach("after_admit")
        return admitted


class _Relay(Relay):
    points: Points

    def _await_confirmed(self, window: Any) -> None:
        self.points.reach("mid_publish")
        super()._await_confirmed(window)
        self.points.reach("after_confirm")


@dataclass(frozen=True)
class Failing(Runtime):
    """The runtime, each stage of which passes its points."""

    points: Points = field(default_factory=lambda: Points(Path(), {}))

    def _pointed(self, part: Any, kind: type) -> Any:
        part.__class__ = kind  # the same object, built by production, with our hooks around its methods
        part.points = self.points
        return part

    @cached_property
    def execute(self) -> Execute:
        return self._pointed(super().execute, _Execute)  # type: ignore[no-any-return]

    @cached_property
    def heartbeat(self) -> Heartbeat:
        return self._pointed(super().heartbeat, _Heartbeat)  # type: ignore[no-any-return]

    @cached_property
    def advance(self) -> Advance:
        return self._pointed(super().advance, _Advance)  # type: ignore[no-any-return]

    @cached_property
    def settle(self) -> Settle:
        return self._pointed(super().settle, _Settle)  # type: ignore[no-any-return]

    @cached_property
    def secrets(self) -> Secrets:
        return self._pointed(super().secrets, _Secrets)  # type: ignore[no-any-return]

    @cached_property
    def intake(self) -> Intake:
        return self._pointed(super().intake, _Intake)  # type: ignore[no-any-return]


def main() -> None:
    """Run one process with failpoints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("process", choices=sorted(POINTS))
    parser.add_argument("--at", action="append", default=[], help="point:action[:nth]; action: wait or kill")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    at = {}
    for text in given.at:
        point, action, *nth = text.split(":")
        at[point] = (action, int(nth[0]) - 1 if nth else 0)
    points = Points(given.folder, at)
    runtime = Failing(settings.read(), f"habeas {given.process}", points)
    if given.process == "intake":
        run_intake(runtime)
    elif given.process == "worker":
        run_worker(runtime, (), None)
    else:
        relay = _Relay(runtime.settings, runtime.database)
        relay.points = points
        run_clock(runtime, relay)


# The test's side. ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failpoint:
    """One point, as the test sees it."""

    folder: Path
    point: str

    @property
    def process(self) -> str:
        """Whose point it is."""
        return next(process for process, points in POINTS.items() if self.point in points)

    def arguments(self, action: str = "wait", nth: int = 1) -> tuple[str, ...]:
        """For the process that is to stop here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ("--folder", str(self.folder), "--at", f"{self.point}:{action}:{nth}")

    def reached_by(self) -> int | None:
        """The process that is or was here."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / self.point).read_text())
        return None

    def let_go(self) -> None:
        """Whoever waits here goes on."""
        (self.folder / f"{self.point}.go").touch()


if __name__ == "__main__":
    main()
