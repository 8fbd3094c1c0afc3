"""The desk: gates and manual steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.contract import Action, Declined, Done, Fatal, Identity, Outcome, Pending, Result, Retention, Task
from connectors.desk import Desk, DeskConfig

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Moment:
    """A call at a given time, with a sink that remembers."""

    now: datetime = NOON
    written: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def sink(self, task: Task) -> Moment:
        return self

    def write(self, collection: str, record: Mapping[str, Any]) -> None:
        self.written.append((collection, dict(record)))

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        raise AssertionError("the desk writes records one by one")

    def attach(self, name: str, chunks: object) -> None:
        raise AssertionError("the desk attaches nothing")


def gates() -> Desk:
    return Desk("desk", DeskConfig())


def archive(**settings: Any) -> Desk:
    return Desk(
        "archive",
        DeskConfig.model_validate(
            {
                "name": "paper archive",
                "by": "records office",
                "categories": ["user.content.private"],
                "identified_by": ["user_id"],
                "instructions": {"erase": "Shred the folder.", "access": "Scan the folder."},
                **settings,
            }
        ),
    )


def step(action: Action = Action.GATE, **changes: Any) -> Task:
    return replace(Task("r1/1", action, (Identity("user_id", "u-77"),)), **changes)


def perform(desk: Desk, task: Task, moment: Moment | None = None) -> Result:
    ((_, result),) = desk.perform(task.action, [task], moment or Moment())
    return result


def waiting(result: Result) -> Pending:
    assert isinstance(result, Pending)
    return result


def parked(desk: Desk, task: Task, now: datetime = NOON) -> Task:
    """The task as the engine hands it back later: with its handle gone through JSON."""
    return replace(task, handle=json.loads(json.dumps(dict(waiting(perform(desk, task, Moment(now))).handle))))


def test_an_approval_waits_for_whom_it_names_and_for_nobody_else() -> None:
    result = waiting(perform(gates(), step(options={"gate": "approval", "by": "privacy-team"})))

    assert result.waiting_on == "approval by privacy-team"
    assert result.poll_after is None
    assert result.handle == {"gate": "approval", "asked_at": NOON.isoformat(), "until": None}


def test_an_approved_gate_is_executed_with_its_evidence() -> None:
    task = parked(gates(), step(options={"gate": "approval"}))
    signal = {"decision": "approve", "actor": "anna", "evidence": {"ticket": "T-1"}}

    assert perform(gates(), replace(task, signal=signal)) == Done(
        Outcome.EXECUTED,
        evidence={"ticket": "T-1", "gate": "approval", "actor": "anna", "decided_at": NOON.isoformat()},
    )


def test_a_decision_may_be_known_before_the_gate_first_asks() -> None:
    result = perform(gates(), step(options={"gate": "approval"}, signal={"decision": "approve"}))

    assert isinstance(result, Done)


@pytest.mark.parametrize(
    ("gate", "said", "reason"),
    [
        ("approval", {"reason": "claim_not_covered"}, "claim_not_covered"),
        ("approval", {}, "other"),
        ("identity_verification", {}, "insuf_verification"),
        ("identity_verification", {"reason": "suspected_fraud"}, "suspected_fraud"),
    ],
)
def test_a_declined_gate_denies_the_request_with_its_reason(gate: str, said: dict[str, str], reason: str) -> None:
    task = parked(gates(), step(options={"gate": gate}))

    assert perform(gates(), replace(task, signal={"decision": "decline", **said})) == Declined(reason)


@pytest.mark.parametrize(("gate", "reason"), [("identity_verification", "insuf_verification"), ("approval", "other")])
def test_a_gate_nobody_answers_in_time_expires(gate: str, reason: str) -> None:
    task = parked(gates(), step(options={"gate": gate, "expires_after": 3600}))

    early = waiting(perform(gates(), task, Moment(NOON + timedelta(minutes=50))))
    late = perform(gates(), task, Moment(NOON + timedelta(hours=1)))

    assert early.poll_after == timedelta(minutes=10)
    assert isinstance(late, Declined)
    assert (late.reason, late.expired) == (reason, True)


def test_an_answer_that_comes_with_the_expiry_counts() -> None:
    task = parked(gates(), step(options={"gate": "approval", "expires_after": 60}))

    assert isinstance(perform(gates(), replace(task, signal={"decision": "approve"}), Moment(NOON + DAY)), Done)


@given(wait=st.integers(0, 10**7), later=st.integers(0, 2 * 10**7))
def test_cooling_off_ends_at_its_time_and_not_before(wait: int, later: int) -> None:
    task = parked(gates(), step(options={"gate": "cooling_off", "wait": wait})) if wait else None
    if task is None:
        assert isinstance(perform(gates(), step(options={"gate": "cooling_off", "wait": 0})), Done)
        return

    result = perform(gates(), task, Moment(NOON + timedelta(seconds=later)))

    if later >= wait:
        assert isinstance(result, Done)
        assert result.outcome is Outcome.EXECUTED
    else:
        assert waiting(result).poll_after == timedelta(seconds=wait - later)


def test_a_withdrawn_request_ends_in_the_cooling_off() -> None:
    task = parked(gates(), step(options={"gate": "cooling_off", "wait": 60}))

    assert perform(gates(), replace(task, signal={"decision": "decline"})) == Declined("other")


def test_a_changed_workflow_does_not_move_the_end_of_a_parked_gate() -> None:
    task = parked(gates(), step(options={"gate": "cooling_off", "wait": 60}))
    changed = replace(task, options={"gate": "cooling_off", "wait": 9999})

    assert isinstance(perform(gates(), changed, Moment(NOON + timedelta(seconds=60))), Done)


@pytest.mark.parametrize(
    ("changes", "field_named"),
    [
        ({"options": {"gate": "coin_toss"}}, "`gate`"),
        ({"options": {"expires_after": -1}}, "`expires_after`"),
        ({"signal": {"decision": "Ada Lovelace says yes"}}, "`decision`"),
        ({"signal": {"decision": "decline", "reason": "did not like Ada"}}, "`reason`"),
        ({"signal": {}}, "`decision`"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_field_and_never_by_value(
    changes: dict[str, Any], field_named: str
) -> None:
    result = perform(gates(), step(**changes))

    assert isinstance(result, Fatal)
    assert field_named in str(result)
    assert "Ada" not in str(result)


def test_a_manual_step_asks_the_people_of_its_system() -> None:
    result = waiting(perform(archive(), step(Action.ERASE)))

    assert result.waiting_on == "erase in paper archive by records office"
    assert result.poll_after is None
    assert "u-77" not in json.dumps(dict(result.handle))


def test_a_manual_step_ends_as_the_person_reports() -> None:
    task = parked(archive(), step(Action.ERASE))
    signal = {
        "decision": "done",
        "outcome": "retained",
        "counts": {"folders": 2},
        "retained": [
            {
                "what": "contracts",
                "reason": "limitation period",
                "legal_basis": "GDPR Art. 17(3)(e)",
                "records": 1,
                "until": "2030-01-01",
            }
        ],
    }
    result = perform(archive(), replace(task, signal=signal))

    assert isinstance(result, Done)
    assert (result.outcome, result.counts) == (Outcome.RETAINED, {"folders": 2})
    assert result.retained == (
        Retention("contracts", "limitation period", "GDPR Art. 17(3)(e)", 1, NOON.date().replace(2030, 1, 1)),
    )


def test_what_is_kept_has_to_be_named() -> None:
    result = perform(archive(), step(Action.ERASE, signal={"decision": "done", "outcome": "retained"}))

    assert isinstance(result, Fatal)


def test_what_a_person_found_by_hand_goes_into_the_package() -> None:
    moment = Moment()
    signal = {"decision": "done", "records": {"letters": [{"date": "1999-01-02"}, {"date": "2001-05-06"}]}}
    result = perform(archive(), step(Action.ACCESS, signal=signal), moment)

    assert isinstance(result, Done)
    assert result.counts == {"letters": 2}
    assert moment.written == [("letters", {"date": "1999-01-02"}), ("letters", {"date": "2001-05-06"})]


def test_a_manual_step_nobody_answers_asks_for_an_operator_and_denies_nothing() -> None:
    desk = archive(expires_after=60)
    task = parked(desk, step(Action.ERASE))

    assert isinstance(perform(desk, task, Moment(NOON + timedelta(seconds=59))), Pending)
    assert isinstance(perform(desk, task, Moment(NOON + timedelta(seconds=60))), Fatal)


def test_a_desk_without_settings_is_for_gates_and_a_manual_system_for_what_it_explains() -> None:
    assert gates().supports() == {Action.GATE}
    assert archive().supports() == {Action.ERASE, Action.ACCESS}
    assert archive().categories() == {"user.content.private"}
    assert archive().identified_by() == {"user_id"}


@pytest.mark.parametrize(
    "settings",
    [{"instructions": {"erase": "x"}}, {"instructions": {"gate": "x"}, "identified_by": ["email"]}, {"x": 1}],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeskConfig.model_validate(settings)
