"""What upstream services are told: announcements of the core → rows of the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, assert_never
from uuid import UUID

from orchestrator.core.commands import Announce
from orchestrator.core.model import Residue, Result, Retention, Run, Step
from orchestrator.core.report import ENGINE_ACTIONS, result_facts
from orchestrator.core.vocabulary import Action, EventKind, Outcome, Resolution
from orchestrator.errors import RefusedMessage
from orchestrator.messages import outbound
from orchestrator.messages.names import package_reference
from orchestrator.messages.signing import Secret
from orchestrator.stages.ids import new_id
from orchestrator.store import bulk
from orchestrator.store.runs import Header

Row = dict[str, Any]
_REMEMBERED, _WAYS = 4096, 256
"""Reports of steps, and ways on which requests ended, that are remembered."""


class Answers:
    """Composes events; holds who we are and how we sign."""

    def __init__(self, source: str, secrets: Sequence[Secret] = ()) -> None:
        """``source``: the CloudEvents source of this deployment."""
        self._source, self._secrets = source, tuple(secrets)
        self._known: dict[int, tuple[tuple[Step, ...], bytes]] = {}
        """Of steps, by their identity, what was done in them: runs that went the same way share them."""

    def announce(self, header: Header, run: Run, announce: Announce, moment: datetime) -> Row:
        """The outbox row of an announcement about a request."""
        data = self._data(header, run, announce, moment)
        dataref = package_reference(header.id) if announce.kind is EventKind.COMPLETED and _has_package(run) else ""
        origin = outbound.Origin(
            header.source, header.message_id, header.correlation_id or "", header.traceparent or ""
        )
        systems = self._systems(run.steps) if announce.kind is EventKind.COMPLETED else b""
        return self._row(data, origin, moment, header.reply_to, header.id, dataref, systems)

    def _systems(self, steps: tuple[Step, ...]) -> bytes:
        known = self._known.get(id(steps))
        if known is None:
            if len(self._known) >= _WAYS:
                self._known.clear()
            # The steps are kept with it, so that no others can take their place in memory.
            known = self._known[id(steps)] = steps, outbound.written(_reports(steps))
        return known[1]

    def refuse(self, error: RefusedMessage, origin: outbound.Origin, reply_to: str, moment: datetime) -> Row:
        """The outbox row that tells a sender why its message was refused."""
        return self._row(outbound.refusal(error, origin.message_id), origin, moment, reply_to or None, None)

    def _data(self, header: Header, run: Run, announce: Announce, moment: datetime) -> outbound.EventData:
        common = {"request_id": header.id, "right": run.right, "regulation": header.regulation}
        match announce.kind:
            case EventKind.ACCEPTED:
                return outbound.Accepted(
                    **common,
                    received_at=header.received_at,
                    deadline=run.deadline,
                    workflow=header.workflow,
                    workflow_version=header.workflow_version,
                )
            case EventKind.WAITING:
                step = run.steps[announce.facts["ordinal"]]
                waiting = outbound.WaitingOn(system=step.system, action=step.action, on=announce.facts["on"])
                return outbound.Waiting(**common, deadline=run.deadline, waiting_on=[waiting])
            case EventKind.COMPLETED:
                return outbound.Completed(
                    **common,
                    resolution=run.resolution or Resolution.COMPLETED,
                    reason=run.stop_reason,
                    received_at=header.received_at,
                    deadline=run.deadline,
                    closed_at=moment,
                )
            case EventKind.REFUSED:
                raise AssertionError("a refused message has no run")
            case _:
                assert_never(announce.kind)

    def _row(
        self,
        data: outbound.EventData,
        origin: outbound.Origin,
        moment: datetime,
        reply_to: str | None,
        request: UUID | None,
        dataref: str = "",
        systems: bytes = b"",
    ) -> Row:
        event_id = new_id()
        message = outbound.compose(
            data,
            event_id=str(event_id),
            source=self._source,
            time=moment,
            origin=origin,
            dataref=dataref,
            secrets=self._secrets,
            systems=systems,
        )
        return {
            "event_id": event_id,
            "request_id": request,
            "kind": str(data.kind),
            "routing_key": message.routing_key,
            "reply_to": reply_to,
            "correlation_id": message.correlation_id or None,
            "headers": bulk.encoded(
                {
                    "headers": dict(message.headers),
                    "properties": {"type": message.type, "timestamp": message.timestamp},
                }
            ),
            "body": message.body,
        }


def _reports(steps: Sequence[Step]) -> list[outbound.SystemReport]:
    """What was done, system by system."""
    by_system: dict[str, list[outbound.StepReport]] = {}
    for step in steps:
        if step.action not in ENGINE_ACTIONS and step.result is not None:
            by_system.setdefault(step.system, []).append(_report(step.action, step.result))
    return [outbound.SystemReport(system=s, steps=by_system[s]) for s in sorted(by_system)]


def _report(action: Action, result: Result) -> outbound.StepReport:
    counts = tuple(result.counts.items())
    return _made_once(action, result.outcome, counts, result.retained, result.residues, result.note)


@lru_cache(_REMEMBERED)
def _made_once(
    action: Action,
    outcome: Outcome,
    counts: tuple[tuple[str, int], ...],
    retained: tuple[Retention, ...],
    residues: tuple[Residue, ...],
    note: str,
) -> outbound.StepReport:
    """Most people's requests end alike, system by system. None of it is personal."""
    facts = result_facts(Result(outcome, dict(counts), retained, residues, note=note))
    return outbound.StepReport(action=action, **facts)


def _has_package(run: Run) -> bool:
    return any(
        s.action is Action.PACKAGE and s.result is not None and s.result.outcome is Outcome.EXECUTED for s in run.steps
    )
