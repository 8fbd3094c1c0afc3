"""Execute: claim a batch, call the connector, settle what it says. No transaction is open while a connector works."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from connectors import contract
from orchestrator import logs
from orchestrator.artifacts.records import Artifact, ArtifactWriter, place
from orchestrator.artifacts.spool import Stored, remove_stored
from orchestrator.core import events as ev
from orchestrator.core.model import NEVER, System
from orchestrator.core.vocabulary import Action, Failure
from orchestrator.errors import StoreFull, Unavailable, VaultError
from orchestrator.privacy.vault import RequestKey
from orchestrator.stages import results
from orchestrator.stages.advance import Advanced, Happening
from orchestrator.stages.heartbeat import Heartbeat
from orchestrator.stages.holds import Holds, handle_of, parked_by_hold, signal_of
from orchestrator.stages.pace import Pace
from orchestrator.stages.secrets import Opened, Secrets
from orchestrator.stages.settle import Settle
from orchestrator.store import claims
from orchestrator.store.claims import Claimed
from orchestrator.store.database import Database

_log = logs.get("execute")

FLUSH, FLUSH_SECONDS = 1000, 1.0
"""While a long batch is still running, its results are settled at this number or after this time."""


@dataclass(frozen=True, slots=True)
class Worked:
    """What one round on a system did."""

    claimed: int = 0
    full: bool = False
    """The claim took all it was allowed to: there may be more."""
    advanced: Advanced = field(default_factory=Advanced)


@dataclass(frozen=True, slots=True)
class _Item:
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

    def work(self, name: str, on_full: Callable[[], None] = lambda: None) -> Worked:
        """One round: one claim, one call for each action in it. Raises ``Unavailable`` when the database is away.

        ``on_full`` is called before the work begins when the claim took all it may: another worker can take the rest.
        """
        system = self._systems[name]
        token, lease = uuid4(), self._heartbeat.lease
        since = time.monotonic()
        with self._database.transaction() as tx:
            claimed = claims.claim(tx, name, system.limits, self._batch, token, lease)
        if not claimed:
            return Worked()
        _log.debug("steps.claimed", system=name, steps=len(claimed))
        # What was lost before comes alone: behind it there may be any number.
        alone = claimed[0].step.crashes > 0
        full = alone or len(claimed) >= min(self._batch, system.limits.batch)
        if full:
            on_full()
        pace = Pace(self._database, name, system.limits.rate, token, len(claimed), since, lease)
        with self._heartbeat.holding(token), pace:
            advanced = self._carry_out(system, claimed, pace)
        return Worked(len(claimed), full, advanced)

    def _carry_out(self, system: System, claimed: Sequence[Claimed], pace: Pace) -> Advanced:
        advanced = Advanced()
        by_action: dict[Action, list[_Item]] = defaultdict(list)
        items, early = self._prepare(system, claimed)
        for item in items:
            by_action[Action(item.task.action)].append(item)
        if early:
            advanced.add(self._settled(system, early, asked=False))
        for action, batch in by_action.items():
            began = flushed = time.monotonic()
            done: list[Happening] = []
            for happening in self._call(system, action, batch, pace):
                done.append(happening)
                if len(done) >= FLUSH or time.monotonic() - flushed > FLUSH_SECONDS:
                    advanced.add(self._settled(system, done))
                    done, flushed = [], time.monotonic()
            if done:
                advanced.add(self._settled(system, done))
            seconds = round(time.monotonic() - began, 3)
            _log.info("batch.worked", system=system.name, action=str(action), steps=len(batch), seconds=seconds)
        return advanced

    def _settled(self, system: System, happenings: Sequence[Happening], *, asked: bool = True) -> Advanced:
        advanced = self._settle.settle(system, happenings, asked=asked)
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

    def _prepare(self, system: System, claimed: Sequence[Claimed]) -> tuple[list[_Item], list[Happening]]:
        """The tasks of a batch; and what is settled without a call (shredded, under legal hold)."""
        try:
            with self._database.transaction() as tx:
                opened = self._secrets.open(tx, {c.request for c in claimed})
                held = self._holds.cases(tx, claimed, opened)
        except Unavailable:
            # Nothing was called: others may have them, and no crash is counted, as soon as the database is back.
            return [], [_happening(c, ev.HandedBack(c.step.ordinal, c.token)) for c in claimed]
        except VaultError as error:
            return [], [_failed(c, system, Failure.FATAL, str(error)) for c in claimed]
        items: list[_Item] = []
        early: list[Happening] = []
        for one in claimed:
            facts = opened.get(one.request)
            if facts is None:
                early.append(_failed(one, system, Failure.FATAL, "the request's personal data was already shredded"))
            elif one.request in held:
                early.append(_happening(one, parked_by_hold(one, held[one.request], datetime.now(UTC))))
            else:
                items.append(_Item(one, _task(one, facts), facts))
        return items, early

    # The call. ------------------------------------------------------------------------------------------------------

    def _call(self, system: System, action: Action, batch: Sequence[_Item], pace: Pace) -> Iterator[Happening]:
        """The connector's results as happenings, one for each item, as they come."""
        items = {item.task.key: item for item in batch}
        call = _Call(self._artifacts, items)
        open_items = dict(items)
        scrub = results.Scrub(i for item in batch for i in item.opened.identities)
        connector = self._connectors[system.name]
        try:
            tasks = [item.task for item in batch]
            for task, result in connector.perform(contract.Action(action), tasks, call, lambda t: pace.begin(t.key)):
                item = open_items.pop(task.key, None)
                if item is not None:
                    yield self._taken(system, item, result, call, scrub)
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
        self, system: System, item: _Item, result: contract.Result, call: _Call, scrub: results.Scrub
    ) -> Happening:
        """A result as a happening. One that can't be taken (no result at all, say) is a defect of this item alone."""
        try:
            return self._happening(system, item, result, call, scrub)
        except StoreFull as error:
            return _failed(item.claimed, system, Failure.RETRYABLE, str(error))
        except Exception as defect:  # noqa: BLE001 - a connector's defect must not take the batch down
            return _crashed(item, system, defect)

    def _happening(
        self, system: System, item: _Item, result: contract.Result, call: _Call, scrub: results.Scrub
    ) -> Happening:
        one, ordinal = item.claimed, item.claimed.step.ordinal
        match result:
            case contract.Done():
                finding = None
                if result.found:
                    found = results.new_identities(result.found, item.opened.identities)
                    finding = self._secrets.seal_finding(item.opened.key, one.request, ordinal, found)
                artifact = call.finish(item.task, system.name, one)
                return Happening(
                    one.request,
                    ev.Finished(ordinal, one.token, results.to_core(result, scrub)),
                    finding=finding,
                    artifact=artifact,
                )
            case contract.Pending():
                until = NEVER if result.poll_after is None else datetime.now(UTC) + result.poll_after
                handle = scrub.json(dict(result.handle))
                return _happening(one, ev.Parked(ordinal, one.token, handle, until, scrub.text(result.waiting_on)))
            case contract.Declined():
                note = scrub.text(result.note)
                return _happening(one, ev.GateDeclined(ordinal, one.token, result.reason, result.expired, note))
            case contract.ConnectorError():
                return _failed(one, system, results.failure_of(result), scrub.text(str(result)), result.after)
        raise TypeError(f"a connector gave a {type(result).__name__} for a result")


class _Call:
    """What a connector is lent for one call: the time, and sinks."""

    def __init__(self, directory: Path, items: Mapping[str, _Item]) -> None:
        self._directory, self._items = directory, items
        self._writers: dict[str, ArtifactWriter] = {}
        self._deposits: dict[str, Artifact] = {}

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sink(self, task: contract.Task) -> contract.Sink:
        if task.key not in self._writers:
            self._writers[task.key] = ArtifactWriter(self.key(task), self.place(task), self._directory)
        return self._writers[task.key]

    def key(self, task: contract.Task) -> RequestKey:
        return self._items[task.key].opened.key

    def request(self, task: contract.Task) -> UUID:
        return self._items[task.key].claimed.request

    def place(self, task: contract.Task) -> str:
        return place(self.request(task), self._items[task.key].claimed.step.ordinal)

    def deposit(self, task: contract.Task, stored: Stored, counts: Mapping[str, int]) -> None:
        self._deposits[task.key] = Artifact(stored, counts)

    def finish(self, task: contract.Task, system: str, one: Claimed) -> dict[str, Any] | None:
        """The artifact row of what a task left, if anything."""
        writer = self._writers.pop(task.key, None)
        artifact = writer.finish() if writer is not None else self._deposits.pop(task.key, None)
        if artifact is None:
            return None
        return {
            "request_id": one.request,
            "ordinal": one.step.ordinal,
            "system": system,
            "records": artifact.records,
            "bytes": artifact.stored.size,
            "counts": {"collections": dict(artifact.collections), "attachments": dict(artifact.attachments)},
            "digest": artifact.stored.digest,
            "inline": artifact.stored.inline,
            "location": artifact.stored.file,
        }

    def discard(self) -> None:
        """Throw away what unfinished tasks wrote."""
        for writer in self._writers.values():
            writer.discard()
        self._writers.clear()


def _task(one: Claimed, facts: Opened) -> contract.Task:
    step = one.step
    return contract.Task(
        key=f"{facts.effects}/{step.ordinal}",
        action=contract.Action(step.action),
        identities=tuple(contract.Identity(i.type, i.value, i.format) for i in facts.identities),
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
