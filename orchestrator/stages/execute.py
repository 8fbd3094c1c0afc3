"""Execute: claim a batch, call the connector, settle what it says. No transaction is open while a connector works.

A round may take the batches of several systems: a request whose data lies in three systems that answer at once is
claimed, opened and settled once and not three times. Only quick systems share a round, and nothing that was lost before
shares it, so nobody waits for a slow system, or falls with a step that takes its worker down. And a round goes on with
what it made ready in quick systems (``onward``).
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from connectors import contract
from orchestrator import logs
from orchestrator.artifacts.spool import Stored, remove_stored
from orchestrator.core import events as ev
from orchestrator.core.model import NEVER, System
from orchestrator.core.vocabulary import Action, Failure
from orchestrator.errors import StoreFull, Unavailable
from orchestrator.stages import results
from orchestrator.stages.advance import Advanced, Happening, Known
from orchestrator.stages.heartbeat import Heartbeat
from orchestrator.stages.holds import HELD_BACK, Holds, handle_of, parked_by_hold, signal_of
from orchestrator.stages.lent import Lent
from orchestrator.stages.onward import Onward
from orchestrator.stages.pace import Pace
from orchestrator.stages.secrets import Facts, Opened, Sealed, Secrets
from orchestrator.stages.settle import Said, Settle
from orchestrator.store import claims
from orchestrator.store.claims import Claimed
from orchestrator.store.database import Database

_log = logs.get("execute")

FLUSH, FLUSH_SECONDS, FLUSH_BYTES = 4000, 1.0, 32 << 20
"""While a round is still under way, its results are settled at this number, after this time, or when they hold so much
gathered data."""
_ACTIONS = {action: contract.Action(action) for action in Action}
QUICK = 0.25
"""Seconds that a call may take, going by the last one, for its system to share a round, or to be gone on to."""


@dataclass(frozen=True, slots=True)
class Worked:
    """What one round did."""

    claimed: int = 0
    full: tuple[str, ...] = ()
    """Systems of which the claim took all it was allowed to: there may be more."""
    advanced: Advanced = field(default_factory=Advanced)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was claimed of one system."""

    system: System
    claimed: Sequence[Claimed]
    pace: Pace


class _Item(NamedTuple):
    """A claimed step with what the connector is told of it."""

    claimed: Claimed
    task: contract.Task
    opened: Opened


class Execute:
    """Works on systems."""

    def __init__(
        self,
        database: Database,
        systems: Mapping[str, System],
        connectors: Mapping[str, contract.Connector[Any]],
        secrets: Secrets,
        holds: Holds,
        settle: Settle,
        heartbeat: Heartbeat,
        artifacts: Path,
        batch: int,
    ) -> None:
        """``batch``: the most steps of one claim."""
        self._database, self._systems, self._connectors = database, systems, connectors
        self._secrets, self._holds, self._settle, self._heartbeat = secrets, holds, settle, heartbeat
        self._artifacts, self._batch = artifacts, batch
        self._seconds: dict[str, float] = {}
        """System → seconds that a step took in its last call."""

    def together(self, systems: Sequence[str]) -> Sequence[str]:
        """Those which one round can take, the first of them first: it alone, unless all are quick and without limits.

        A limited system has its row locked by a claim, and several such rows are never locked at once.
        """
        first, *others = systems
        if not self._quick(first, self._most(first)):
            return [first]
        return [first, *sorted(name for name in others if self._quick(name, 1))]

    def work(
        self,
        first: str,
        *others: str,
        served: Collection[str] = (),
        until: float = math.inf,
        on_full: Callable[[], None] = lambda: None,
        on_ready: Callable[[Counter[str]], None] = lambda _: None,
    ) -> Worked:
        """One round: a claim on each system, then one call for each action in it.

        ``others``: as ``together`` says. What this makes ready in quick systems of ``served`` is taken at once, and
        worked on in the same way (``onward``), as long as ``time.monotonic()`` is not past ``until``. ``on_full`` is
        called before the work begins when the first claim took all it may: another worker can take the rest;
        ``on_ready`` before it goes on, with what is ready for others. Raises ``Unavailable`` when the database is away.
        """
        batches, sealed, holds = self._claim(first, others)
        if not batches:
            return Worked()
        # What was lost before comes alone: behind it there may be any number.
        alone = batches[0].claimed[0].step.crashes > 0
        full = tuple(b.system.name for b in batches if alone or len(b.claimed) >= self._allowed(b.system.name, first))
        if first in full:
            on_full()
        known = Known(self._secrets.unseal(sealed))
        claimed, advanced, core = 0, Advanced(), results.Results()
        while True:
            claimed += sum(len(b.claimed) for b in batches)
            with ExitStack() as leases:
                for batch in batches:
                    leases.enter_context(self._heartbeat.holding(batch.claimed[0].token))
                    leases.enter_context(batch.pace)
                goes_on = served if time.monotonic() < until else ()
                advanced.add(self._carry_out(batches, known, core, goes_on, holds=holds))
            following = advanced.following
            if following is None:
                return Worked(claimed, full, advanced)
            for_others = Counter({s: n for s, n in advanced.rings.items() if s not in served or not self._quick(s, 1)})
            if for_others:
                on_ready(for_others)
                advanced.rings -= for_others
            batches, known, holds = self._batches(following.taken), advanced.known, following.holds

    def _claim(self, first: str, others: Sequence[str]) -> tuple[list[_Batch], Sealed, bool]:
        """Claim, and read the sealed facts of what was claimed; whether any legal hold is in force."""
        batches: list[_Batch] = []
        lease = self._heartbeat.lease
        with self._database.transaction() as tx:
            for name in (first, *others):
                if batches and batches[0].claimed[0].step.crashes:
                    break
                system, n = self._systems[name], self._allowed(name, first)
                limits, token, since, beside = system.limits, uuid4(), time.monotonic(), name != first
                claimed = claims.claim(tx, name, limits, n, token, lease, beside=beside)
                if claimed:
                    batches.append(self._batch_of(system, claimed, since))
            sealed = self._secrets.sealed(tx, {c.request for b in batches for c in b.claimed})
            holds = self._holds.any(tx, (c.step.action for b in batches for c in b.claimed))
        return batches, sealed, holds

    def _batches(self, taken: Mapping[str, Sequence[Claimed]]) -> list[_Batch]:
        return [self._batch_of(self._systems[name], its, time.monotonic()) for name, its in taken.items()]

    def _batch_of(self, system: System, claimed: Sequence[Claimed], since: float) -> _Batch:
        _log.debug("steps.claimed", system=system.name, steps=len(claimed))
        lease, rate = self._heartbeat.lease, system.limits.rate
        return _Batch(
            system, claimed, Pace(self._database, system.name, rate, claimed[0].token, len(claimed), since, lease)
        )

    def _most(self, name: str) -> int:
        """The most steps of one claim."""
        return min(self._batch, self._systems[name].limits.batch)

    def _allowed(self, name: str, first: str) -> int:
        """The most steps of a claim on a system, beside the first one or as it."""
        return self._most(name) if name == first else self._beside(name)

    def _beside(self, name: str) -> int:
        """The most steps that are taken of a quick system."""
        return min(self._most(name), int(QUICK / max(self._seconds[name], 1e-6)))

    def _quick(self, name: str, n: int) -> bool:
        """Whether so many steps would be done quickly, and no limit is to be kept."""
        return not self._systems[name].limits.limited and self._seconds.get(name, math.inf) * n <= QUICK

    def _carry_out(
        self,
        batches: Sequence[_Batch],
        known: Known,
        core: results.Results,
        served: Collection[str],
        *,
        holds: bool,
    ) -> Advanced:
        advanced, done = Advanced(), Said(known)
        flushed = time.monotonic()
        core.also(i for one in known.facts.values() if isinstance(one, Opened) for i in one.identities)
        for batch in batches:
            system = batch.system
            items, early = self._prepare(batch, known.facts, holds=holds)
            for happening in early:
                done.add(system, happening, asked=False)
            by_action: dict[Action, list[_Item]] = defaultdict(list)
            for item in items:
                by_action[item.claimed.step.action].append(item)
            for action, tasks in by_action.items():
                began = time.monotonic()
                for happening in self._call(batch, _ACTIONS[action], tasks, core):
                    done.add(system, happening)
                    late = time.monotonic() - flushed > FLUSH_SECONDS
                    if late or len(done) >= FLUSH or done.bytes >= FLUSH_BYTES:
                        advanced.add(self._settled(done))
                        done, flushed = Said(known), time.monotonic()
                seconds = time.monotonic() - began
                self._seconds[system.name] = seconds / len(tasks)
                _log.info(
                    "batch.worked", system=system.name, action=str(action), steps=len(tasks), seconds=round(seconds, 3)
                )
        if len(done):
            # Not to a system that fails: it is for its circuit breaker to say whether it is asked again.
            room = {s: self._beside(s) for s in served if s not in done.failed and self._quick(s, 1)}
            ranks = {c.request: c.rank for batch in batches for c in batch.claimed}
            advanced.add(self._settled(done, Onward(room, self._heartbeat.lease, ranks)))
        return advanced

    def _settled(self, said: Said, onward: Onward | None = None) -> Advanced:
        advanced = self._settle.settle(said, onward)
        late = [h.artifact for h in advanced.fenced if h.artifact and h.artifact["location"]]
        if late:
            with self._database.transaction() as tx:
                # A settle that was sent twice is fenced the second time: what the first stored stays.
                kept = self._settle.locations(tx, [a["request_id"] for a in late])
            for row in late:
                if row["location"] not in kept:
                    remove_stored(Stored(row["bytes"], row["digest"], file=row["location"]), self._artifacts)
        return advanced

    # Before the call. -----------------------------------------------------------------------------------------------

    def _prepare(self, batch: _Batch, opened: Facts, *, holds: bool) -> tuple[list[_Item], list[Happening]]:
        """The tasks of a batch; and what is settled without a call (shredded or damaged, under legal hold)."""
        system = batch.system
        items: list[_Item] = []
        early: list[Happening] = []
        for one in batch.claimed:
            facts = opened.get(one.request)
            if isinstance(facts, Opened):
                items.append(_Item(one, _task(one, facts), facts))
            else:
                why = str(facts or "the request's personal data was already shredded")
                early.append(_failed(one, system, Failure.FATAL, why))
        if not holds or HELD_BACK.isdisjoint(i.claimed.step.action for i in items):
            return items, early
        try:
            with self._database.transaction() as tx:
                held = self._holds.cases(tx, [(i.claimed, i.opened) for i in items])
        except Unavailable:
            # Nothing was called: others may have them, and no crash is counted, as soon as the database is back.
            return [], [
                *early,
                *(_happening(i.claimed, ev.HandedBack(i.claimed.step.ordinal, i.claimed.token)) for i in items),
            ]
        now = datetime.now(UTC)
        early += [
            _happening(i.claimed, parked_by_hold(i.claimed, held[i.claimed.request], now))
            for i in items
            if i.claimed.request in held
        ]
        return [i for i in items if i.claimed.request not in held], early

    # The call. ------------------------------------------------------------------------------------------------------

    def _call(
        self, batch: _Batch, action: contract.Action, its: Sequence[_Item], core: results.Results
    ) -> Iterator[Happening]:
        """The connector's results as happenings, one for each item, as they come."""
        system, pace = batch.system, batch.pace
        items = {item.task.key: item for item in its}
        call = Lent(self._artifacts, items)
        open_items = dict(items)
        connector = self._connectors[system.name]
        try:
            tasks = [item.task for item in its]
            for task, result in connector.perform(action, tasks, call, lambda t: pace.begin(t.key)):
                item = open_items.pop(task.key, None)
                if item is not None:
                    yield self._taken(system, item, result, call, core)
        except StoreFull as error:
            for item in open_items.values():
                yield _failed(item.claimed, system, Failure.RETRYABLE, str(error))
            open_items.clear()
        except Exception as defect:  # noqa: BLE001 - a connector's defect must not take the worker down
            for item in open_items.values():
                yield _crashed(item, system, defect)
            open_items.clear()
        finally:
            call.discard()
        for key, item in open_items.items():
            if key in pace.refused:
                yield _happening(item.claimed, ev.HandedBack(item.claimed.step.ordinal, item.claimed.token))
            else:
                yield _failed(item.claimed, system, Failure.RETRYABLE, "the connector gave no result for this task")

    def _taken(
        self, system: System, item: _Item, result: contract.Result, call: Lent, core: results.Results
    ) -> Happening:
        """A result as a happening. One that can't be taken (no result at all, say) is a defect of this item alone."""
        try:
            return self._happening(system, item, result, call, core)
        except StoreFull as error:
            return _failed(item.claimed, system, Failure.RETRYABLE, str(error))
        except Exception as defect:  # noqa: BLE001 - a connector's defect must not take the batch down
            return _crashed(item, system, defect)

    def _happening(
        self, system: System, item: _Item, result: contract.Result, call: Lent, core: results.Results
    ) -> Happening:
        one, ordinal = item.claimed, item.claimed.step.ordinal
        match result:
            case contract.Done():
                finding = None
                if result.found:
                    found = results.new_identities(result.found, item.opened.identities)
                    finding = self._secrets.seal_finding(item.opened.key, one.request, ordinal, found)
                event = ev.Finished(ordinal, one.token, core.result(result))
                return Happening(one.request, event, finding, call.finish(item.task, system.name, one))
            case contract.Pending():
                until = NEVER if result.poll_after is None else datetime.now(UTC) + result.poll_after
                handle = core.scrub.json(dict(result.handle))
                return _happening(one, ev.Parked(ordinal, one.token, handle, until, core.scrub.text(result.waiting_on)))
            case contract.Declined():
                note = core.scrub.text(result.note)
                return _happening(one, ev.GateDeclined(ordinal, one.token, result.reason, result.expired, note))
            case contract.ConnectorError():
                return _failed(one, system, results.failure_of(result), core.scrub.text(str(result)), result.after)
        raise TypeError(f"a connector gave a {type(result).__name__} for a result")


def _task(one: Claimed, facts: Opened) -> contract.Task:
    step = one.step
    return contract.Task(
        key=f"{facts.effects}/{step.ordinal}",
        action=_ACTIONS[step.action],
        identities=facts.told,
        categories=facts.categories,
        corrections=facts.corrections,
        purposes=facts.purposes,
        options=step.options,
        handle=handle_of(step),
        signal=signal_of(step),
        attempt=step.attempt,
        deadline=one.deadline,
    )


def _happening(one: Claimed, event: ev.WorkerEvent) -> Happening:
    return Happening(one.request, event)


def _crashed(item: _Item, system: System, defect: Exception) -> Happening:
    kind = type(defect).__name__
    _log.error("connector.crashed", system=system.name, action=str(item.task.action), error=kind, exc_info=defect)
    return _failed(item.claimed, system, Failure.CRASHED, f"the connector has a defect: {kind}")


def _failed(one: Claimed, system: System, failure: Failure, message: str, after: timedelta | None = None) -> Happening:
    jitter = random.random()  # noqa: S311 - spreads retries; nothing secret about it
    event = ev.Failed(one.step.ordinal, one.token, failure, message, system.retry, jitter, after)
    return Happening(one.request, event)
