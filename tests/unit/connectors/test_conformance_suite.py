"""The conformance suite has teeth: a good connector keeps every law, and each way of being bad breaks one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from connectors.conformance import ConnectorConformance, World
from connectors.contract import (
    Action,
    Call,
    Connector,
    ConnectorConfig,
    Done,
    Fatal,
    Identity,
    Outcome,
    Result,
    Results,
    Retryable,
    Task,
)

Rows = dict[str, dict[str, Any]]


class Memory(Connector[ConnectorConfig]):
    """Keeps people by e-mail address, as it should."""

    Config = ConnectorConfig
    rows: Rows | None = None

    def categories(self) -> frozenset[str]:
        return frozenset({"user.name"})

    def identified_by(self) -> frozenset[str]:
        return frozenset({"email"})

    def look(self, task: Task) -> dict[str, Any] | None:
        if self.rows is None:
            raise Retryable("memory could not be reached")
        return self.rows.get(task.values("email")[0])

    def access(self, task: Task, call: Call) -> Result:
        row = self.look(task)
        if row is None:
            return Done(Outcome.NO_MATCH)
        call.sink(task).write("people", row)
        return Done(Outcome.EXECUTED, {"people": 1})

    def rectify(self, task: Task, call: Call) -> Result:
        row = self.look(task)
        if row is None:
            return Done(Outcome.NO_MATCH)
        row["name"] = task.corrections["user.name"]
        return Done(Outcome.EXECUTED, {"people": 1})

    def erase(self, task: Task, call: Call) -> Result:
        if self.look(task) is None:
            return Done(Outcome.NO_MATCH)
        assert self.rows is not None
        del self.rows[task.values("email")[0]]
        return Done(Outcome.EXECUTED, {"people": 1})

    def verify(self, task: Task, call: Call) -> Result:
        row = self.look(task)
        held = row is None if task.options["of"] == "erase" else row and row["name"] == task.corrections["user.name"]
        return Done(Outcome.VERIFIED) if held else Fatal("it does not hold")


class TellsTheAddress(Memory):
    def erase(self, task: Task, call: Call) -> Result:
        result = super().erase(task, call)
        assert isinstance(result, Done)
        return Done(result.outcome, result.counts, evidence={"erased": task.values("email")[0]})


class ErasesEverybody(Memory):
    def erase(self, task: Task, call: Call) -> Result:
        if self.look(task) is None:
            return Done(Outcome.NO_MATCH)
        assert self.rows is not None
        self.rows.clear()
        return Done(Outcome.EXECUTED, {"people": 1})


class ErasesNobody(Memory):
    def erase(self, task: Task, call: Call) -> Result:
        return Done(Outcome.NO_MATCH if self.look(task) is None else Outcome.EXECUTED)


class KnowsStrangers(Memory):
    def erase(self, task: Task, call: Call) -> Result:
        super().erase(task, call)
        return Done(Outcome.EXECUTED)


class VerifiesBlindly(Memory):
    def verify(self, task: Task, call: Call) -> Result:
        self.look(task)
        return Done(Outcome.VERIFIED)


class ChangesWhileLooking(Memory):
    def access(self, task: Task, call: Call) -> Result:
        row = self.look(task)
        if row is not None:
            row["seen"] = row.get("seen", 0) + 1
        return super().access(task, call)


class GathersEverybody(Memory):
    def access(self, task: Task, call: Call) -> Result:
        result = super().access(task, call)
        for row in (self.rows or {}).values():
            call.sink(task).write("people", row)
        return result


class CountsTwice(Memory):
    def rectify(self, task: Task, call: Call) -> Result:
        row = self.look(task)
        if row is not None:
            row["corrected"] = row.get("corrected", 0) + 1
        return super().rectify(task, call)


class Bulk(Memory):
    """Forgets the last person of a batch."""

    def erase_many(self, tasks: Sequence[Task], call: Call) -> Results:
        some = tasks[:-1] if len(tasks) > 1 else tasks
        return {task.key: self.erase(task, call) for task in some}


class Raises(Memory):
    def look(self, task: Task) -> dict[str, Any] | None:
        if self.rows is None:
            raise OSError(f"no route to memory for {task.values('email')[0]}")
        return super().look(task)


def world_of(connector_class: type[Memory]) -> World:
    rows: Rows = {f"{n}@x.example": {"email": f"{n}@x.example", "name": n} for n in ("ada", "bob", "eve")}
    subclass = type(connector_class.__name__, (connector_class,), {"rows": rows})
    nowhere = connector_class("nowhere", ConnectorConfig())
    return World(
        connector=subclass("memory", ConnectorConfig()),
        person=(Identity("email", "ada@x.example"),),
        other=(Identity("email", "bob@x.example"),),
        stranger=(Identity("email", "zoe@x.example"),),
        snapshot=lambda: {
            label: copy.deepcopy(rows.get(f"{n}@x.example"))
            for label, n in (("person", "ada"), ("other", "bob"), ("third", "eve"))
        },
        unreachable=nowhere,
    )


class TestMemoryConformance(ConnectorConformance):
    actions = Memory.actions()

    @pytest.fixture
    def world(self) -> World:
        return world_of(Memory)


def laws() -> Iterator[tuple[str, Callable[[World], None]]]:
    """Every law that applies, ready to be put to a world."""
    suite = TestMemoryConformance()
    for name in [n for n in dir(suite) if n.startswith("test_")]:
        law = getattr(suite, name)
        if law is None:
            continue
        choices = vars(law.__func__).get("conformance_actions")
        if choices is None:
            yield name, law
        for action in set(choices or ()) & suite.actions:
            yield f"{name}[{action}]", lambda world, law=law, action=action: law(world, action)  # type: ignore[misc]


def broken_laws(connector_class: type[Memory]) -> set[str]:
    broken = set()
    for name, law in laws():
        try:
            law(world_of(connector_class))
        except (AssertionError, OSError):
            broken.add(name)
    return broken


def test_a_good_connector_breaks_no_law() -> None:
    assert broken_laws(Memory) == set()


@pytest.mark.parametrize(
    ("bad", "law"),
    [
        (TellsTheAddress, "test_a_change_is_made_to_the_person_and_to_nobody_else[erase]"),
        (ErasesEverybody, "test_a_change_is_made_to_the_person_and_to_nobody_else[erase]"),
        (ErasesNobody, "test_an_erasure_is_verified"),
        (KnowsStrangers, "test_a_stranger_is_no_match_and_nothing_changes[erase]"),
        (VerifiesBlindly, "test_what_was_done_is_verified_afterwards_and_not_before[rectify]"),
        (ChangesWhileLooking, "test_looking_changes_nothing[access]"),
        (GathersEverybody, "test_access_gathers_the_persons_records_and_nobody_elses"),
        (CountsTwice, "test_the_same_task_twice_has_one_effect[rectify]"),
        (Bulk, "test_a_batch_with_a_stranger_in_it_is_answered_completely[erase]"),
        (Raises, "test_a_system_that_does_not_answer_is_an_error_without_personal_data"),
    ],
)
def test_each_way_of_being_bad_breaks_a_law(bad: type[Memory], law: str) -> None:
    assert law in broken_laws(bad)


def test_laws_about_what_a_system_cannot_do_are_not_collected() -> None:
    class Between(ConnectorConformance):
        """Names no actions, and so drops every law that needs one."""

    class TestReadOnly(Between):
        actions = frozenset({Action.ACCESS})
        reaches_out = False

    kept: Mapping[str, object] = {n: getattr(TestReadOnly, n) for n in dir(TestReadOnly) if n.startswith("test_")}
    assert kept["test_access_gathers_the_persons_records_and_nobody_elses"] is not None
    assert kept["test_looking_changes_nothing"] is not None
    assert kept["test_the_same_task_twice_has_one_effect"] is None
    assert kept["test_an_erasure_is_verified"] is None
    assert kept["test_a_system_that_does_not_answer_is_an_error_without_personal_data"] is None


def test_a_suite_that_would_test_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="actions"):
        type("TestNothing", (ConnectorConformance,), {})
