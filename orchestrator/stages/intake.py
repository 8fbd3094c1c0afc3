"""Intake: a batch of broker messages → requests, answers again, or quarantine; all in one transaction.

A message is acknowledged only after the commit. One that comes twice changes nothing: the same facts get the same
answer again, other facts under the same id go to quarantine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from orchestrator import logs
from orchestrator.errors import HabeasError, Refusal, RefusedMessage
from orchestrator.messages import inbound, outbound
from orchestrator.messages.envelope import Delivery
from orchestrator.messages.request import RightsRequest
from orchestrator.messages.sources import Sources
from orchestrator.privacy.audit import GENESIS
from orchestrator.privacy.ledger import Ledger
from orchestrator.stages.advance import Advance, Advanced
from orchestrator.stages.answers import Answers
from orchestrator.stages.ids import effects_key, new_id
from orchestrator.stages.planning import Planned, Planner
from orchestrator.stages.quarantine import Quarantine
from orchestrator.stages.secrets import EFFECTS, Secrets
from orchestrator.store import bulk, outbox, runs, tables, turns
from orchestrator.store.database import Database

_log = logs.get("intake")


@dataclass(slots=True)
class Admitted:
    """What became of a batch."""

    accepted: list[UUID] = field(default_factory=list)
    repeated: list[UUID] = field(default_factory=list)
    refused: list[RefusedMessage] = field(default_factory=list)
    advanced: Advanced = field(default_factory=Advanced)

    def add(self, other: Admitted) -> None:
        """Take in another's."""
        self.accepted += other.accepted
        self.repeated += other.repeated
        self.refused += other.refused
        self.advanced.add(other.advanced)


@dataclass(frozen=True, slots=True)
class _Arrival:
    id: UUID
    delivery: Delivery
    request: RightsRequest
    planned: Planned
    digests: tuple[bytes, ...]
    """Keyed digest of the facts: under the current master key, and under each older one."""


@dataclass(slots=True)
class _Refused:
    delivery: Delivery
    error: RefusedMessage


class Intake:
    """Admits messages."""

    def __init__(
        self,
        database: Database,
        sources: Sources,
        planner: Planner,
        secrets: Secrets,
        ledger: Ledger,
        answers: Answers,
        quarantine: Quarantine,
        max_body: int,
    ) -> None:
        """``max_body``: bytes; larger messages are refused."""
        self._database, self._sources, self._planner = database, sources, planner
        self._secrets, self._ledger, self._answers = secrets, ledger, answers
        self._quarantine, self._max_body = quarantine, max_body
        self._advance = Advance(answers, secrets)

    def admit(self, deliveries: Sequence[Delivery]) -> Admitted:
        """Admit a batch. Raises ``Unavailable`` when the database is away: then nothing has happened at all."""
        try:
            return self._admit_all(deliveries)
        except (HabeasError, MemoryError):
            raise
        except Exception as defect:  # noqa: BLE001 - a defect met by one message must not stop the others
            # One message that we can't process must not hold up those behind it.
            if len(deliveries) == 1:
                return self._set_aside(deliveries[0], defect)
        total = Admitted()
        for delivery in deliveries:
            total.add(self.admit([delivery]))
        return total

    def _set_aside(self, delivery: Delivery, defect: Exception) -> Admitted:
        error = RefusedMessage(Refusal.UNPROCESSABLE, f"a defect in Habeas ({type(defect).__name__}); nothing to mend")
        _log.error("message.unprocessable", error=type(defect).__name__, exc_info=defect)
        with self._database.transaction() as tx:
            return self._admit(tx, [], [_Refused(delivery, error)])

    def _admit_all(self, deliveries: Sequence[Delivery]) -> Admitted:
        arrivals: list[_Arrival] = []
        refused: list[_Refused] = []
        for delivery in deliveries:
            try:
                request = inbound.receive(delivery, self._sources, max_body=self._max_body)
                planned = self._planner.plan(request)
                digests = self._ledger.body_candidates(request.body_digest)
                arrivals.append(_Arrival(new_id(), delivery, request, planned, digests))
            except RefusedMessage as error:
                refused.append(_Refused(delivery, error))
        with self._database.transaction() as tx:
            return self._admit(tx, arrivals, refused)

    def _admit(self, tx: Connection, arrivals: Sequence[_Arrival], refused: list[_Refused]) -> Admitted:
        admitted = Admitted()
        moment, new, again, conflicts = _sort(tx, arrivals)
        refused += [_Refused(a.delivery, _conflict()) for a in conflicts]
        backs = self._turns(new)
        with bulk.together(tx, commit=True):
            self._begin(tx, zip(new, backs, strict=True), moment, admitted)
            admitted.repeated = [id_ for _, id_ in again]
            for arrival, id_ in again:
                outbox.put_again(tx, id_, arrival.request.reply_to, arrival.request.correlation_id)
            for item in refused:
                admitted.refused.append(item.error)
                self._quarantine.put(tx, item.delivery, item.error)
            outbox.put(tx, [self._refusal(item, moment) for item in refused])
        return admitted

    def _begin(
        self, tx: Connection, new: Iterable[tuple[_Arrival, timedelta]], moment: datetime, admitted: Admitted
    ) -> None:
        changes: list[runs.Change] = []
        secrets: list[Mapping[str, Any]] = []
        for arrival, turn in new:
            route = arrival.planned.route
            run = arrival.planned.run(arrival.id)
            changes.append(runs.Change(self._header(arrival), None, run, route.commands, turn))
            secrets.append(self._secrets.seal(arrival.id, self._facts(arrival.request)))
        admitted.advanced = self._advance.save(tx, changes, moment)
        self._secrets.store(tx, secrets)
        admitted.accepted = [c.header.id for c in changes]

    def _turns(self, new: Sequence[_Arrival]) -> list[timedelta]:
        """How far each stands back. A transaction of its own: intake processes must not wait for each other."""
        if not new:
            return []
        with self._database.statements() as tx:
            starts = turns.take(tx, Counter(a.request.source for a in new))
        backs: list[timedelta] = []
        for arrival in new:
            backs.append(min(starts[arrival.request.source], turns.FURTHEST))
            starts[arrival.request.source] += turns.STEP
        return backs

    def _facts(self, request: RightsRequest) -> dict[str, Any]:
        facts: dict[str, Any] = {**request.facts(), EFFECTS: str(effects_key(request.source, request.message_id))}
        categories = self._planner.fides(request.categories)
        if categories is not None:
            facts.setdefault("scope", {})["categories"] = sorted(categories)
        return facts

    def _header(self, arrival: _Arrival) -> runs.Header:
        request = arrival.request
        return runs.Header(
            id=arrival.id,
            right=str(request.right),
            regulation=self._planner.regulation(request),
            source=request.source,
            message_id=request.message_id,
            workflow=arrival.planned.route.workflow,
            workflow_version=arrival.planned.route.version,
            keep_days=self._planner.keep_days(request),
            reply_to=request.reply_to or None,
            correlation_id=request.correlation_id or None,
            traceparent=request.traceparent or None,
            received_at=request.received_at,
            audit_seq=0,
            audit_head=GENESIS,
        )

    def _refusal(self, item: _Refused, moment: datetime) -> dict[str, Any]:
        source, message_id = inbound.claims(item.delivery, self._max_body)
        origin = outbound.Origin(source, message_id, item.delivery.correlation_id)
        return self._answers.refuse(item.error, origin, item.delivery.reply_to, moment)


_Sorted = tuple[datetime, list[_Arrival], list[tuple[_Arrival, UUID]], list[_Arrival]]


def _sort(tx: Connection, arrivals: Sequence[_Arrival]) -> _Sorted:
    """The time; which are new, which came before with the same facts (and as which request), which with others."""
    first: dict[tuple[str, str], _Arrival] = {}
    for arrival in arrivals:
        first.setdefault((arrival.request.source, arrival.request.message_id), arrival)
    rows = [
        {"source": source, "message_id": message_id, "digest": a.digests[0], "request_id": a.id}
        for (source, message_id), a in sorted(first.items())
    ]
    inserted = bulk.insert(
        tx, tables.inbox, rows, ignore="source, message_id", returning="request_id, clock_timestamp()"
    )
    moment = inserted[0][1] if inserted else runs.now(tx)
    mine = {id_ for id_, _ in inserted}
    before = _came_before(tx, [r for r in rows if r["request_id"] not in mine])
    new: list[_Arrival] = []
    again: list[tuple[_Arrival, UUID]] = []
    conflicts: list[_Arrival] = []
    for arrival in arrivals:
        if arrival.id in mine:
            new.append(arrival)
            continue
        key = arrival.request.source, arrival.request.message_id
        known = first[key]
        digest, id_ = (known.digests[0], known.id) if known.id in mine else before[key]
        if digest in arrival.digests:
            again.append((arrival, id_))
        else:
            conflicts.append(arrival)
    return moment, new, again, conflicts


def _came_before(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[bytes, UUID]]:
    """The digests and requests of messages that were taken by earlier transactions."""
    if not rows:
        return {}
    keys = {"sources": [r["source"] for r in rows], "ids": [r["message_id"] for r in rows]}
    return {(source, id_): (digest, request) for source, id_, digest, request in tx.execute(_INBOX, keys)}


_INBOX = text("""
SELECT source, message_id, digest, request_id FROM inbox
JOIN unnest(CAST(:sources AS text[]), CAST(:ids AS text[])) AS k(s, i) ON source = k.s AND message_id = k.i""")


def _conflict() -> RefusedMessage:
    hint = "this id was used before for something else; send the new request under a new id"
    return RefusedMessage(Refusal.CONFLICTING_REPLAY, hint)
