# ruff: noqa: S101 (a test suite is made of asserts, wherever it lies)
"""The laws. Each test gets a fresh world, and drives the connector as the engine does."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

import pytest

from connectors.conformance.world import TestCall, World
from connectors.contract import (
    Action,
    ConnectorError,
    Declined,
    Done,
    Identity,
    Outcome,
    Pending,
    Result,
    Task,
)

__all__ = ["ConnectorConformance"]

ROUNDS: Final = 50  # looks at a pending task before the suite gives up on it
LOOKING: Final = frozenset({Action.DISCOVER, Action.ACCESS, Action.VERIFY})
CHANGING: Final = frozenset({Action.RECTIFY, Action.ERASE, Action.RESTRICT, Action.SUPPRESS})
HELD: Final = frozenset({Outcome.EXECUTED, Outcome.VERIFIED, Outcome.ACCEPTED, Outcome.RESIDUAL, Outcome.RETAINED})
"""Outcomes that say: the person was there."""
NOBODY: Final = frozenset({Outcome.NO_MATCH})
UNREACHABLE_TEST: Final = "test_a_system_that_does_not_answer_is_an_error_without_personal_data"
VERIFIABLE: Final = frozenset({Outcome.VERIFIED, Outcome.NO_MATCH})


def for_actions(*actions: Action) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Collect a test once for each of these actions that the system supports, as its argument ``action``."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        test.__dict__["conformance_actions"] = actions
        return test

    return mark


def needs(*actions: Action) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Collect a test only where the system supports all of these actions."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        test.__dict__["conformance_needs"] = frozenset(actions)
        return test

    return mark


class ConnectorConformance:
    """Inherit, name the actions, build a world. Every test gets a fresh one."""

    actions: ClassVar[frozenset[Action]] = frozenset()
    """What the system in the world supports, as configured there."""
    reaches_out: ClassVar[bool] = True
    """Whether there is a system that can fail to answer; then the world has ``unreachable``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Drop the tests of what the system does not support: a name that is ``None`` is not collected."""
        super().__init_subclass__(**kwargs)
        if cls.__name__.startswith("Test") and not cls.actions:
            raise TypeError(f"{cls.__name__} would test nothing: name the system's `actions`")
        for name in [n for n in vars(ConnectorConformance) if n.startswith("test_") and n not in vars(cls)]:
            # Looked for in all bases: a class between may have dropped the law for its own actions.
            law = next(vars(base)[name] for base in cls.__mro__ if vars(base).get(name) is not None)
            setattr(cls, name, law if cls._applies(name, vars(law)) else None)

    @classmethod
    def _applies(cls, name: str, marks: Mapping[str, Any]) -> bool:
        choices: Sequence[Action] = marks.get("conformance_actions", tuple(cls.actions))
        reachable = cls.reaches_out or name != UNREACHABLE_TEST
        return reachable and bool(cls.actions & set(choices)) and marks.get("conformance_needs", set()) <= cls.actions

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test marked by ``for_actions`` the actions that the system supports."""
        choices: Sequence[Action] | None = getattr(metafunc.function, "conformance_actions", None)
        if choices is not None:
            metafunc.parametrize("action", sorted(self.actions & set(choices)), ids=str)

    @pytest.fixture
    def world(self) -> World:
        """A fresh system. Override this."""
        raise NotImplementedError(f"{type(self).__name__} defines no fixture `world`")

    @pytest.fixture(autouse=True)
    def _closed(self, world: World) -> Iterator[None]:
        yield
        world.connector.close()
        if world.unreachable is not None:
            world.unreachable.close()

    # Helpers. ------------------------------------------------------------------------------------------------------

    def task(self, world: World, action: Action, who: Sequence[Identity], key: str = "r1/1", **changes: Any) -> Task:
        """A task that means something for this action."""
        made = Task(key, action, tuple(who), corrections=world.corrections, purposes=world.purposes)
        options = {"of": str(Action.ERASE)} if action is Action.VERIFY else {}
        return replace(made, **{"options": options, **changes})

    def settle(self, world: World, tasks: Sequence[Task], call: TestCall | None = None) -> dict[str, Result]:
        """Carry tasks of one action to their end, as the engine does: parked ones come back with handle and report."""
        call = call or TestCall()
        results: dict[str, Result] = {}
        todo = list(tasks)
        for _ in range(ROUNDS):
            parked: list[Task] = []
            for task, result in world.connector.perform(tasks[0].action, todo, call):
                assert task.key not in results, "a task was answered twice"
                self._says_nothing_personal(world, result)
                if isinstance(result, Pending):
                    handle = json.loads(json.dumps(dict(result.handle)))
                    parked.append(replace(task, handle=handle, signal=world.respond(task, result)))
                    call.now += result.poll_after or timedelta(0)
                else:
                    results[task.key] = result
            if not parked:
                assert results.keys() == {t.key for t in tasks}, "some task was not answered"
                return results
            todo = parked
        raise AssertionError(f"{len(todo)} tasks are still pending after {ROUNDS} looks")

    def one(self, world: World, task: Task, call: TestCall | None = None) -> Result:
        """Carry one task to its end."""
        return self.settle(world, [task], call)[task.key]

    def done(self, world: World, task: Task, call: TestCall | None = None) -> Done:
        """Carry one task to a good end."""
        result = self.one(world, task, call)
        assert isinstance(result, Done), f"{task.action} ended with {result!r}"
        return result

    def _says_nothing_personal(self, world: World, result: Result) -> None:
        """Everything that is kept or logged about a task, as text, has none of the three people's values in it."""
        match result:
            case Done():
                said = repr(replace(result, found=()))
            case Pending() | Declined():
                said = repr(result)
            case ConnectorError():
                said = f"{result} {result!r} {result.__cause__!r}"
                said += "" if result.__suppress_context__ else f" {result.__context__!r}"
        for identity in (*world.person, *world.other, *world.stranger):
            assert identity.value.lower() not in said.lower(), (
                f"a value of type {identity.type} is in a {type(result).__name__}"
            )

    # What the system says of itself. ---------------------------------------------------------------------------------

    def test_the_system_supports_what_its_connector_defines(self, world: World) -> None:
        """``supports`` is within ``actions``, and is what this suite was told."""
        assert world.connector.supports() == self.actions
        assert self.actions <= type(world.connector).actions()

    def test_categories_and_identities_are_named_in_the_common_vocabulary(self, world: World) -> None:
        """Fides keys; identity types of the contract; people of the world can be found by what is promised."""
        kinds = {"email", "user_id", "phone", "device_id", "ip", "stripe_customer_id"}
        connector = world.connector
        for kind in connector.identified_by() | connector.discovers():
            assert kind in kinds or kind.startswith("custom:"), kind
        for key in connector.categories():
            assert key == key.strip().lower(), f"{key!r} is no data category"
            assert all(part.isidentifier() for part in key.split(".")), f"{key!r} is no data category"
        assert connector.identified_by(), "a system needs an identity type by which it finds people"
        for who in (world.person, world.other, world.stranger):
            assert connector.identified_by() & {i.type for i in who}, "the world's people cannot be found"
        if connector.discovers():
            assert Action.DISCOVER in connector.supports()

    def test_closing_twice_and_before_use_is_harmless(self, world: World) -> None:
        """A connector that is made again from the same settings works."""
        unused = type(world.connector)(world.connector.system, world.connector.config)
        unused.close()
        unused.close()
        world.connector.close()
        world.connector.close()
        again = replace(world, connector=type(world.connector)(world.connector.system, world.connector.config))
        action = min(self.actions)
        self.one(again, self.task(again, action, world.stranger))
        again.connector.close()

    # Strangers. ----------------------------------------------------------------------------------------------------

    @for_actions(*(LOOKING | CHANGING))
    def test_a_stranger_is_no_match_and_nothing_changes(self, world: World, action: Action) -> None:
        """To verify an erasure of nobody may also hold: nothing is there."""
        before = world.snapshot()
        call = TestCall()
        result = self.done(world, self.task(world, action, world.stranger), call)
        assert result.outcome in (VERIFIABLE if action is Action.VERIFY else NOBODY)
        assert not result.found
        assert not any(sink.records or sink.files for sink in call.sinks.values())
        assert world.snapshot() == before

    # Looking. ------------------------------------------------------------------------------------------------------

    @for_actions(*LOOKING)
    def test_looking_changes_nothing(self, world: World, action: Action) -> None:
        """Discover, access and verify, even where what they verify does not hold."""
        before = world.snapshot()
        self.settle(world, [self.task(world, action, w, f"r/{n}") for n, w in enumerate((world.person, world.other))])
        assert world.snapshot() == before

    @needs(Action.DISCOVER)
    def test_discover_finds_identities_of_the_person_and_of_nobody_else(self, world: World) -> None:
        """Of the types that the connector promises."""
        result = self.done(world, self.task(world, Action.DISCOVER, world.person))
        assert result.outcome in HELD
        assert {i.type for i in result.found} <= world.connector.discovers() | {i.type for i in world.person}
        assert not set(result.found) & set(world.other)

    @needs(Action.ACCESS)
    def test_access_gathers_the_persons_records_and_nobody_elses(self, world: World) -> None:
        """As JSON; the counts are of what was written."""
        call = TestCall()
        result = self.done(world, self.task(world, Action.ACCESS, world.person), call)
        assert result.outcome in HELD
        gathered = call.sinks["r1/1"]
        assert gathered.records or gathered.files
        assert result.counts, "access says how many records of each kind it gathered"
        assert sum(result.counts.values()) == len(gathered.records) + len(gathered.files)
        for identity in world.other:
            assert identity.value.lower() not in gathered.text().lower(), (
                f"somebody else's {identity.type} was gathered"
            )

    @needs(Action.ACCESS)
    def test_access_by_two_threads_at_once_is_access_by_each(self, world: World) -> None:
        """One connector serves a worker's threads."""

        def gather(who: Sequence[Identity], key: str) -> tuple[Result, list[tuple[str, str]]]:
            call = TestCall()
            result = self.one(world, self.task(world, Action.ACCESS, who, key), call)
            return result, sorted(call.sink(self.task(world, Action.ACCESS, who, key)).records)

        alone = [gather(world.person, "a"), gather(world.other, "b")]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(gather, (world.person, world.other), ("a", "b")))
        assert [records for _, records in together] == [records for _, records in alone]

    # Changing. -----------------------------------------------------------------------------------------------------

    @for_actions(*CHANGING)
    def test_a_change_is_made_to_the_person_and_to_nobody_else(self, world: World, action: Action) -> None:
        """Compared in the system itself."""
        before = dict(world.snapshot())
        result = self.done(world, self.task(world, action, world.person))
        after = dict(world.snapshot())
        assert result.outcome in HELD
        assert after.pop("person") != before.pop("person"), f"{action} changed nothing"
        assert after == before, f"{action} changed somebody else's data"

    @for_actions(*CHANGING)
    def test_the_same_task_twice_has_one_effect(self, world: World, action: Action) -> None:
        """A worker may die after the effect and before the answer is kept."""
        task = self.task(world, action, world.person)
        self.done(world, task)
        once = world.snapshot()
        self.done(world, replace(task, attempt=2))
        assert world.snapshot() == once

    @for_actions(*CHANGING)
    def test_a_batch_with_a_stranger_in_it_is_answered_completely(self, world: World, action: Action) -> None:
        """Each person has a result of their own, the same as alone."""
        people = {"r1/1": world.person, "r2/1": world.stranger, "r3/1": world.other, "r4/1": world.person}
        results = self.settle(world, [self.task(world, action, who, key) for key, who in people.items()])
        outcomes = {key: result.outcome for key, result in results.items() if isinstance(result, Done)}
        assert outcomes.keys() == people.keys(), results
        assert outcomes["r2/1"] is Outcome.NO_MATCH
        assert outcomes["r3/1"] in HELD
        assert {outcomes["r1/1"], outcomes["r4/1"]} <= HELD | NOBODY  # asked for twice: either may have been first
        assert {outcomes["r1/1"], outcomes["r4/1"]} & HELD

    @for_actions(Action.DISCOVER, Action.ACCESS)
    def test_a_batch_finds_what_one_at_a_time_finds(self, world: World, action: Action) -> None:
        """Set-based reading must not mix people up."""
        people = {"a": world.person, "b": world.stranger, "c": world.other}
        tasks = [self.task(world, action, who, key) for key, who in people.items()]
        batch, single = TestCall(), TestCall()
        together = self.settle(world, tasks, batch)
        alone = {task.key: self.one(world, task, single) for task in tasks}
        for key, result in together.items():
            assert isinstance(result, Done)
            one = alone[key]
            assert isinstance(one, Done)
            assert (result.outcome, result.counts) == (one.outcome, one.counts)
            assert set(result.found) == set(one.found)
        assert {k: sorted(s.records) for k, s in batch.sinks.items()} == {
            k: sorted(s.records) for k, s in single.sinks.items()
        }

    @for_actions(*CHANGING)
    def test_two_threads_change_two_people_at_once(self, world: World, action: Action) -> None:
        """Each is changed as if alone, and the rest is untouched."""
        before = dict(world.snapshot())
        with ThreadPoolExecutor(2) as pool:
            tasks = (self.task(world, action, world.person, "a"), self.task(world, action, world.other, "b"))
            results = list(pool.map(lambda task: self.one(world, task), tasks))
        after = dict(world.snapshot())
        assert all(isinstance(r, Done) and r.outcome in HELD for r in results), results
        for who in ("person", "other"):
            assert after.pop(who) != before.pop(who)
        assert after == before

    @needs(Action.VERIFY)
    @for_actions(*CHANGING)
    def test_what_was_done_is_verified_afterwards_and_not_before(self, world: World, action: Action) -> None:
        """What a system cannot look up afterwards, it says so of (“unsupported”)."""
        verify = self.task(world, Action.VERIFY, world.person, "r1/2", options={"of": str(action)})
        before = self.one(world, verify)
        assert not (isinstance(before, Done) and before.outcome is Outcome.VERIFIED), "verified before it was done"
        self.done(world, self.task(world, action, world.person))
        assert self.done(world, verify).outcome in {Outcome.VERIFIED, Outcome.UNSUPPORTED}

    @needs(Action.ERASE, Action.VERIFY)
    def test_an_erasure_is_verified(self, world: World) -> None:
        """Never only “unsupported”: erasure is what people rely on."""
        self.done(world, self.task(world, Action.ERASE, world.person))
        assert self.done(world, self.task(world, Action.VERIFY, world.person)).outcome is Outcome.VERIFIED

    # Failing. ------------------------------------------------------------------------------------------------------

    def test_a_system_that_does_not_answer_is_an_error_without_personal_data(self, world: World) -> None:
        """Every action, for every task of a batch: a ``ConnectorError``, and no other exception."""
        assert world.unreachable is not None, "give the world `unreachable`, or set `reaches_out = False`"
        for action in sorted(self.actions):
            tasks = [self.task(world, action, who, key) for key, who in (("a", world.person), ("b", world.other))]
            results = list(world.unreachable.perform(action, tasks, TestCall()))
            assert sorted(task.key for task, _ in results) == ["a", "b"]
            for _, result in results:
                assert isinstance(result, ConnectorError), f"{action} ended with {result!r}"
                self._says_nothing_personal(world, result)
                assert str(pickle.loads(pickle.dumps(result))) == str(result)  # noqa: S301 (our own bytes)
