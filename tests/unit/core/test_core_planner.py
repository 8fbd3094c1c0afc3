"""Planning: which steps there are, and what each waits for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import StepTemplate, System
from orchestrator.core.planner import CyclicOrder, NothingToDo, overlap
from orchestrator.core.vocabulary import Action, Outcome, StepState
from tests.support.runs import a_system, planned, table

GATE = StepTemplate("identity", Action.GATE, options={"gate": "identity_verification"}, unless_verified=True)
DISCOVER = StepTemplate("discover", Action.DISCOVER, needs=("identity",))
ERASE = StepTemplate("erase", Action.ERASE, needs=("identity", "discover"))
VERIFY = StepTemplate("verify", Action.VERIFY, after_same=("erase",), options={"of": "erase"})


def test_a_template_becomes_a_step_of_every_system_in_order_of_name() -> None:
    plan = planned([a_system("shop"), a_system("crm")], StepTemplate("erase", Action.ERASE))
    assert [(s.ordinal, s.system, s.state) for s in plan.steps] == [(0, "crm", "waiting"), (1, "shop", "waiting")]
    assert plan.deadline.isoformat() == "2026-02-28T12:00:00+00:00"


def test_a_system_waits_only_for_the_discoveries_that_can_help_it() -> None:
    users = a_system("users", discovers=["user_id"])
    logs = a_system("logs", identified_by=["user_id"])
    mail = a_system("mail")
    found = table(planned([users, logs, mail], DISCOVER, ERASE, verified=True))
    assert found == {
        "discover@logs": {"discover@users"},
        "discover@mail": set(),
        "discover@users": set(),
        "erase@logs": {"discover@logs", "discover@users"},
        "erase@mail": {"discover@mail"},
        "erase@users": {"discover@users", "erase@logs"},
    }


def test_of_two_systems_that_could_help_each_other_the_one_that_is_reached_first_goes_first() -> None:
    users = a_system("users", identified_by=["email", "device_id"], discovers=["user_id"])
    devices = a_system("devices", identified_by=["user_id"], discovers=["device_id"])
    found = table(planned([devices, users], DISCOVER, verified=True))
    assert found == {"discover@devices": {"discover@users"}, "discover@users": set()}


def test_identities_flow_over_several_systems() -> None:
    a = a_system("a", discovers=["user_id"])
    b = a_system("b", identified_by=["user_id"], discovers=["device_id"])
    c = a_system("c", identified_by=["device_id"])
    found = table(planned([c, b, a], DISCOVER, ERASE, verified=True))
    assert found["discover@c"] == {"discover@b"}
    assert found["discover@b"] == {"discover@a"}
    assert found["erase@a"] == {"discover@a", "erase@b"}
    assert found["erase@b"] == {"discover@a", "discover@b", "erase@c"}


def test_what_identities_are_discovered_from_is_erased_last() -> None:
    users = a_system("users", discovers=["user_id"])
    found = table(planned([users, a_system("ads", identified_by=["user_id"])], StepTemplate("erase", Action.ERASE)))
    assert found == {"erase@ads": set(), "erase@users": {"erase@ads"}}


def test_the_data_maps_order_wins_over_the_order_of_discovery() -> None:
    users = a_system("users", discovers=["user_id"])
    ads = a_system("ads", identified_by=["user_id"], erase_after=["users"])
    found = table(planned([users, ads], StepTemplate("erase", Action.ERASE)))
    assert found == {"erase@ads": {"erase@users"}, "erase@users": set()}


def test_a_contradiction_in_the_data_map_is_named() -> None:
    a, b, c = a_system("a", erase_after=["b"]), a_system("b", erase_after=["c"]), a_system("c", erase_after=["a"])
    with pytest.raises(CyclicOrder) as caught:
        planned([a, b, c], StepTemplate("erase", Action.ERASE))
    assert set(caught.value.path) == {"a", "b", "c"}
    assert caught.value.path[0] == caught.value.path[-1]


def test_entries_that_need_each_other_are_named() -> None:
    one, two = StepTemplate("one", Action.ACCESS, needs=("two",)), StepTemplate("two", Action.ERASE, needs=("one",))
    with pytest.raises(CyclicOrder, match="one in crm"):
        planned([a_system("crm")], one, two)


def test_a_scope_by_system_leaves_the_others_out() -> None:
    plan = planned([a_system("crm"), a_system("shop")], ERASE, systems=frozenset({"shop"}))
    assert set(table(plan)) == {"erase@shop"}


@pytest.mark.parametrize(
    ("held", "scope", "concerned"),
    [
        ("user.contact.email", "user.contact", True),
        ("user.contact", "user.contact.email", True),
        ("user.contact", "user.contact", True),
        ("user.contacts", "user.contact", False),
        ("user.device", "user.contact", False),
    ],
)
def test_a_category_covers_its_children_and_is_part_of_its_parent(held: str, scope: str, concerned: bool) -> None:  # noqa: FBT001
    assert overlap([held], [scope]) is concerned


def test_a_scope_in_which_nothing_is_held_is_nothing_to_do() -> None:
    with pytest.raises(NothingToDo):
        planned([a_system("crm", categories=["user.contact"])], ERASE, categories=frozenset({"user.device"}))
    with pytest.raises(NothingToDo):
        planned([a_system("crm")], ERASE, systems=frozenset({"other"}))


def test_what_a_system_cannot_do_is_settled_from_the_start_with_the_reason() -> None:
    why = {Action.ERASE: "logs rotate out within 10 days"}
    crm = a_system("crm", actions={Action.ACCESS}, cannot=why)
    [step] = planned([crm], StepTemplate("erase", Action.ERASE)).steps
    assert (step.state, step.result and step.result.outcome) == (StepState.DONE, Outcome.UNSUPPORTED)
    assert step.result is not None
    assert step.result.note == "logs rotate out within 10 days"


def test_a_system_in_which_nobody_can_be_found_is_unsupported_and_says_by_what_one_is_found_there() -> None:
    [_, step] = planned(
        [a_system("crm"), a_system("tv", identified_by=["device_id"])], StepTemplate("erase", Action.ERASE)
    ).steps
    assert step.result is not None
    assert step.result.note == "a person is found there by device_id only, and none is known"


def test_a_discovery_or_check_that_a_system_cannot_make_is_left_out() -> None:
    plan = planned([a_system("crm", actions={Action.ERASE})], DISCOVER, ERASE, VERIFY, verified=True)
    assert set(table(plan)) == {"erase@crm"}


def test_verification_evidence_saves_the_gate() -> None:
    assert "identity@desk" in table(planned([a_system("crm")], GATE, ERASE))
    assert "identity@desk" not in table(planned([a_system("crm")], GATE, ERASE, verified=True))


def test_an_entry_for_some_sources_is_left_out_for_others() -> None:
    approval = StepTemplate("approval", Action.GATE, only_sources=frozenset({"partner"}))
    assert set(table(planned([a_system("crm")], approval, ERASE))) == {"erase@crm"}
    assert "approval@desk" in table(planned([a_system("crm")], approval, ERASE, source="partner"))


def test_where_an_entry_is_left_out_what_it_waited_for_is_waited_for_in_its_place() -> None:
    approval = StepTemplate("approval", Action.GATE, needs=("copy",), only_sources=frozenset({"partner"}))
    copy = StepTemplate("copy", Action.ACCESS)
    found = table(planned([a_system("crm")], copy, approval, StepTemplate("erase", Action.ERASE, needs=("approval",))))
    assert found["erase@crm"] == {"copy@crm"}


def test_a_gate_before_a_discovery_holds_back_those_too_who_need_nothing_of_the_discovery() -> None:
    discover = StepTemplate("discover", Action.DISCOVER, needs=("gate",))
    erase = StepTemplate("erase", Action.ERASE, needs=("discover",))
    gate = StepTemplate("gate", Action.GATE)
    blind = a_system("blind", actions={Action.ERASE})
    assert table(planned([blind], gate, discover, erase))["erase@blind"] == {"gate@desk"}
    found = table(planned([blind, a_system("users", discovers=["user_id"])], gate, discover, erase))
    assert found["erase@blind"] == {"gate@desk"}


def test_a_check_after_a_check_that_a_system_cannot_make_waits_for_what_was_checked() -> None:
    audit = StepTemplate("audit", Action.ACCESS, after_same=("verify",))
    crm = a_system("crm", actions={Action.ERASE, Action.ACCESS})
    assert table(planned([crm], StepTemplate("erase", Action.ERASE), VERIFY, audit))["audit@crm"] == {"erase@crm"}


# For all shapes. -----------------------------------------------------------------------------------------------------

KINDS = ("email", "user_id", "device_id", "phone")
names = st.sampled_from("abcdef")
kinds = st.frozensets(st.sampled_from(KINDS), max_size=3)


def _a_system(name: str, by: frozenset[str], finds: frozenset[str], after: frozenset[str]) -> System:
    return a_system(name, identified_by=by | {"email"}, discovers=finds, erase_after=after - {name})


one_system = st.builds(_a_system, names, kinds, kinds, st.frozensets(names, max_size=2))
systems = st.lists(one_system, min_size=1, max_size=6, unique_by=lambda s: s.name)


@given(systems)
def test_every_plan_can_be_worked_to_its_end(shop: list[System]) -> None:
    """No circle, whatever helps whom: or the data map's own contradiction is named."""
    try:
        plan = planned(shop, GATE, DISCOVER, ERASE, VERIFY)
    except CyclicOrder:
        return
    done: set[int] = set()
    while len(done) < len(plan.steps):
        free = {s.ordinal for s in plan.steps if s.ordinal not in done and s.needs <= done}
        assert free, "a circle"
        done |= free


@given(systems)
def test_the_same_question_has_the_same_plan(shop: list[System]) -> None:
    try:
        first = planned(shop, GATE, DISCOVER, ERASE, VERIFY)
    except CyclicOrder:
        return
    assert first == planned(reversed(shop), GATE, DISCOVER, ERASE, VERIFY)


@given(systems)
def test_nothing_of_any_system_begins_before_an_unanswered_gate(shop: list[System]) -> None:
    try:
        found = table(planned(shop, GATE, DISCOVER, ERASE, VERIFY))
    except CyclicOrder:
        return

    def behind(step: str) -> bool:
        return "identity@desk" in found[step] or any(behind(n) for n in found[step])

    assert all(behind(step) for step in found if step != "identity@desk")
