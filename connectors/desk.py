"""The desk: people as a system.

Two things are asked of people, and both wait without holding a worker:

* **Gates** stop a request until somebody has verified an identity, approved, or until a cooling-off time is over.
* **Manual steps** are the actions on a system that nobody has an API for, a paper archive say: somebody is asked to do
  it, and reports what was done.

The desk does no I/O. It answers ``Pending`` until it is woken by a time or by a report (``Task.signal``):

    {"decision": "approve" | "decline" | "done",
     "reason":   a reason of the Data Rights Protocol, when declined,
     "actor":    who decided,
     "evidence": {…},                                          # proof to keep, no personal data
     "outcome":  "executed" | "verified" | "no_match" | "retained" | "unsupported" | "skipped",   # manual steps
     "counts":   {"folders": 2},
     "retained": [{"what": …, "reason": …, "legal_basis": …, "records": 1, "until": "2036-12-31"}],
     "records":  {"letters": [{…}]},                           # manual access: what was found
     "note":     why, for unsupported and skipped}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, ValidationError, model_validator

from connectors.contract import (
    Action,
    Call,
    Connector,
    ConnectorConfig,
    Declined,
    Done,
    Fatal,
    Outcome,
    Pending,
    Result,
    Retention,
    Task,
)

__all__ = ["Desk", "DeskConfig", "GateOptions", "Signal"]

Gate = Literal["identity_verification", "approval", "cooling_off", "manual"]
Reason = Literal[
    "suspected_fraud",
    "insuf_verification",
    "no_match",
    "claim_not_covered",
    "outside_jurisdiction",
    "too_many_requests",
    "other",
]
"""Why a request was denied: the Data Rights Protocol 1.0's vocabulary."""
ManualAction = Literal[Action.ACCESS, Action.ERASE, Action.RECTIFY, Action.RESTRICT, Action.SUPPRESS]
ManualOutcome = Literal[
    Outcome.EXECUTED,
    Outcome.VERIFIED,
    Outcome.NO_MATCH,
    Outcome.RETAINED,
    Outcome.UNSUPPORTED,
    Outcome.SKIPPED,
]

WAITING: Mapping[str, str] = {
    "identity_verification": "identity verification",
    "approval": "approval",
    "cooling_off": "the end of the cooling-off period",
    "manual": "a manual step",
}
"""What a gate waits for, in the words of ``habeas why``."""


class DeskConfig(ConnectorConfig):
    """Settings of a system that people work by hand. The built-in desk of gates needs none."""

    name: str = ""
    """What people call the system, e.g. ``paper archive``; empty: its name in the systems file."""
    by: str = "the desk"
    """Who is asked, e.g. ``records office``."""
    instructions: Mapping[ManualAction, str] = Field(default_factory=dict)
    """Action → what to do, for the person asked. The system supports exactly the actions named here."""
    categories: frozenset[str] = frozenset()
    """The data categories (Fides keys) that the system holds."""
    identified_by: frozenset[str] = frozenset()
    """The identity types by which people can find somebody in it, e.g. ``user_id``."""
    expires_after: PositiveFloat | None = None
    """Seconds after which an unanswered manual step is reported as expired; ``None``: it waits until answered."""

    @model_validator(mode="after")
    def _a_manual_system_can_be_searched(self) -> DeskConfig:
        if bool(self.instructions) != bool(self.identified_by):
            raise ValueError(
                "`instructions` and `identified_by` belong together: name what people do and how they find somebody"
            )
        return self


class GateOptions(BaseModel):
    """A gate step's ``with:`` block."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    gate: Gate = "approval"
    by: str = ""
    """Who is asked, e.g. ``privacy-team``."""
    expires_after: PositiveFloat | None = None
    """Seconds until an unanswered gate ends the request; ``None``: it waits until answered."""
    wait: Annotated[float, Field(ge=0)] = 0
    """Seconds that a ``cooling_off`` lasts."""
    instructions: str = ""
    """What the person asked should do or look at."""


class Retained(BaseModel):
    """What a person reports as rightly kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    reason: str
    legal_basis: str
    records: NonNegativeInt
    until: date | None = None


class Signal(BaseModel):
    """What a person reports about a parked gate or manual step; see the module's text for the shape."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    decision: Literal["approve", "decline", "done"]
    reason: Reason | None = None
    actor: str = ""
    evidence: dict[str, Any] = Field(default_factory=dict)
    outcome: ManualOutcome = Outcome.EXECUTED
    counts: dict[str, NonNegativeInt] = Field(default_factory=dict)
    retained: tuple[Retained, ...] = ()
    records: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _what_is_kept_is_named(self) -> Signal:
        if (self.outcome is Outcome.RETAINED) != bool(self.retained):
            raise ValueError("`outcome: retained` and the list `retained` belong together: say what is kept and why")
        return self


class Desk(Connector[DeskConfig]):
    """Gates and manual steps: everything that waits for people or for a time."""

    Config = DeskConfig
    parallel = 1  # nothing here waits, so threads would only cost

    def supports(self) -> frozenset[Action]:
        """Gates, or the actions that the settings give instructions for."""
        return frozenset(Action(a) for a in self.config.instructions) or frozenset({Action.GATE})

    def categories(self) -> frozenset[str]:
        """As configured."""
        return self.config.categories

    def identified_by(self) -> frozenset[str]:
        """As configured."""
        return self.config.identified_by

    def gate(self, task: Task, call: Call) -> Result:
        """Wait for a decision or a time.

        Raises ``Fatal`` when the step's options or the report cannot be understood.
        """
        try:
            options = GateOptions.model_validate(dict(task.options))
        except ValidationError as error:
            _refuse("the gate's `with:` block", error)
        asked_at, until = self._times(task, call.now, options)
        if task.signal is not None:
            return self._decided(task.signal, options.gate, call.now)
        if until is not None and call.now >= until:
            if options.gate == "cooling_off":
                return Done(Outcome.EXECUTED, evidence={"gate": options.gate, "until": until.isoformat()})
            return Declined(_default_reason(options.gate), expired=True, note=f"no {WAITING[options.gate]} in time")
        asked = f"{WAITING[options.gate]} by {options.by}" if options.by else WAITING[options.gate]
        return self._wait(options.gate, asked_at, until, call.now, asked)

    def access(self, task: Task, call: Call) -> Result:
        """Ask for a copy of what the system holds; a report's ``records`` go into the sink."""
        return self._by_hand(Action.ACCESS, task, call)

    def erase(self, task: Task, call: Call) -> Result:
        """Ask for an erasure."""
        return self._by_hand(Action.ERASE, task, call)

    def rectify(self, task: Task, call: Call) -> Result:
        """Ask for a correction."""
        return self._by_hand(Action.RECTIFY, task, call)

    def restrict(self, task: Task, call: Call) -> Result:
        """Ask for a restriction."""
        return self._by_hand(Action.RESTRICT, task, call)

    def suppress(self, task: Task, call: Call) -> Result:
        """Ask for processing to stop."""
        return self._by_hand(Action.SUPPRESS, task, call)

    def _by_hand(self, action: Action, task: Task, call: Call) -> Result:
        asked_at = _moment(task.handle, "asked_at") or call.now
        lasts = self.config.expires_after
        until = _moment(task.handle, "until") or (asked_at + timedelta(seconds=lasts) if lasts else None)
        if task.signal is not None:
            return self._reported(task, call)
        if until is not None and call.now >= until:
            return Fatal(f"nobody reported `{action}` in {self._name} in time: ask {self.config.by}, then retry")
        waiting_on = f"{action} in {self._name} by {self.config.by}"
        return self._wait("manual", asked_at, until, call.now, waiting_on)

    @property
    def _name(self) -> str:
        return self.config.name or self.system

    @staticmethod
    def _times(task: Task, now: datetime, options: GateOptions) -> tuple[datetime, datetime | None]:
        """When it was asked and when it ends: what the handle says, so that a changed workflow does not move it."""
        if task.handle is not None:
            return _moment(task.handle, "asked_at") or now, _moment(task.handle, "until")
        lasts = options.wait if options.gate == "cooling_off" else options.expires_after
        return now, None if lasts is None else now + timedelta(seconds=lasts)

    @staticmethod
    def _wait(gate: Gate, asked_at: datetime, until: datetime | None, now: datetime, waiting_on: str) -> Pending:
        return Pending(
            handle={"gate": gate, "asked_at": asked_at.isoformat(), "until": until.isoformat() if until else None},
            poll_after=until - now if until else None,
            waiting_on=waiting_on,
        )

    @staticmethod
    def _decided(raw: Mapping[str, Any], gate: Gate, now: datetime) -> Result:
        signal = _read(raw)
        if signal.decision == "decline":
            return Declined(signal.reason or _default_reason(gate))
        return Done(Outcome.EXECUTED, counts=signal.counts, evidence=_evidence(signal, gate, now))

    def _reported(self, task: Task, call: Call) -> Result:
        signal = _read(task.signal or {})
        if signal.decision == "decline":
            return Declined(signal.reason or "other")
        if signal.records:
            sink = call.sink(task)
            for collection, records in signal.records.items():
                for record in records:
                    sink.write(collection, record)
        counts = signal.counts or {collection: len(records) for collection, records in signal.records.items()}
        return Done(
            signal.outcome,
            counts=counts,
            retained=tuple(Retention(r.what, r.reason, r.legal_basis, r.records, r.until) for r in signal.retained),
            evidence=_evidence(signal, "manual", call.now),
            note=signal.note,
        )


def _default_reason(gate: Gate) -> Reason:
    return "insuf_verification" if gate == "identity_verification" else "other"


def _moment(handle: Mapping[str, Any] | None, key: str) -> datetime | None:
    value = (handle or {}).get(key)
    return datetime.fromisoformat(value) if value else None


def _evidence(signal: Signal, gate: Gate, now: datetime) -> dict[str, Any]:
    return {**signal.evidence, "gate": gate, "actor": signal.actor, "decided_at": now.isoformat()}


def _read(raw: Mapping[str, Any]) -> Signal:
    try:
        return Signal.model_validate(dict(raw))
    except ValidationError as error:
        _refuse("the report", error)


def _refuse(what: str, error: ValidationError) -> NoReturn:
    """Name the fields that are wrong, never their values: an operator may have typed a person's name."""
    fields: Sequence[str] = sorted({".".join(str(p) for p in e["loc"][:1]) or "outcome" for e in error.errors()})
    raise Fatal(
        f"{what} has a wrong or missing {', '.join(f'`{f}`' for f in fields)}: "
        f"`gate` is one of {', '.join(get_args(Gate))}; `decision` is approve, decline or done; "
        f"`reason` is one of {', '.join(get_args(Reason))}"
    ) from None
