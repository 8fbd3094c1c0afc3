"""Planning: request + workflow + systems → steps with needs. Pure, and the same for the same input.

Three kinds of edges come about:

* **the workflow's own**: ``needs`` (all steps of the named entry) and ``after_same`` (its step on the same system);
* **identity flow**: a step that needs a ``discover`` entry waits only for the systems that can supply identities it is
  found by, so that one broken system stops only those that depend on it;
* **erasure order**: a data map's ``erase_after``; and a system without which others could not be found goes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.clocks import deadline
from orchestrator.core.model import Ask, Clock, Plan, Result, Step, StepTemplate, System, Workflow
from orchestrator.core.vocabulary import Action, Outcome, StepState

DESK = "desk"
"""The built-in system that gates are steps of."""
PACKAGER = "package"
"""The built-in system that package steps are steps of."""


class NothingToDo(ValueError):
    """No configured system holds data in the request's scope."""


class CyclicOrder(ValueError):
    """The steps need each other in a circle; ``path`` names it."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(" → ".join(path))
        self.path = tuple(path)


@dataclass(slots=True)
class Order:
    """A growing acyclic relation ``before → after`` over names."""

    after: dict[str, set[str]] = field(default_factory=dict)

    def path(self, start: str, end: str) -> list[str] | None:
        """A way from ``start`` to ``end``, or ``None``."""
        ways = [[start]]
        seen = {start}
        while ways:
            way = ways.pop()
            if way[-1] == end:
                return way
            for name in sorted(self.after.get(way[-1], ())):
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])
        return None

    def add(self, before: str, after: str) -> bool:
        """Add an edge unless it would close a circle; says whether it was added."""
        if before == after or self.path(after, before) is not None:
            return False
        self.after.setdefault(before, set()).add(after)
        return True

    def before(self, name: str) -> set[str]:
        """What comes directly before a name."""
        return {b for b, afters in self.after.items() if name in afters}


def overlap(held: Iterable[str], scope: Iterable[str] | None) -> bool:
    """Whether any data category held is in scope; a key covers its children, and a child is part of its parent."""
    if scope is None:
        return True
    wanted = tuple(scope)
    return any(h == w or h.startswith(w + ".") or w.startswith(h + ".") for h in held for w in wanted)


def in_scope(ask: Ask, workflow: Workflow, systems: Iterable[System]) -> list[System]:
    """The systems a request concerns, by name and by data category, in order of name."""
    return sorted(
        (
            s
            for s in systems
            if s.name not in {DESK, PACKAGER}
            and (ask.systems is None or s.name in ask.systems)
            and overlap(s.categories, ask.categories)
            and overlap(s.categories, workflow.categories)
        ),
        key=lambda s: s.name,
    )


def rounds(systems: Iterable[System], known: frozenset[str]) -> dict[str, int]:
    """When each system can first be searched: 0 by the identities a request brings, 1 by what those find, and so on.

    A system that can never be searched is left out.
    """
    pool, types, reached = list(systems), set(known), dict[str, int]()
    for n in range(len(pool) + 1):
        new = [s for s in pool if s.name not in reached and s.identified_by & types]
        if not new:
            break
        reached |= {s.name: n for s in new}
        types |= {t for s in new for t in s.discovers}
    return reached


def identity_flow(systems: Sequence[System], known: frozenset[str]) -> Order:
    """Which system's discovery must come before which other's, given the identity types a request brings.

    Where two could each help the other, the one that can be searched first goes first; of two that can be searched at
    the same time, the one that helps more systems.
    """
    reached = rounds(systems, known)
    helped = {g.name: [t.name for t in systems if t is not g and g.discovers & t.identified_by] for g in systems}
    order = Order()
    for giver in sorted(reached, key=lambda name: (reached[name], -len(helped[name]), name)):
        for taker in sorted(helped[giver]):
            order.add(giver, taker)
    return order


def erasure_order(systems: Sequence[System], known: frozenset[str] = frozenset()) -> Order:
    """Which system must be erased before which other. Raises ``CyclicOrder`` when the data map contradicts itself.

    Besides what is declared: a system without whose help another could not be found goes after that other. Elsewhere
    nobody waits for anybody: what was found is stored, and one broken system must not hold up the rest.
    """
    order = Order()
    names = {s.name for s in systems}
    for system in systems:
        for first in sorted(system.erase_after & names):
            if not order.add(first, system.name):
                raise CyclicOrder([*(order.path(system.name, first) or [first]), system.name])
    reached = rounds(systems, known)
    for giver in systems:
        for taker in systems:
            late = reached.get(taker.name, 0) > reached.get(giver.name, len(systems))
            if late and giver.discovers & taker.identified_by:
                order.add(taker.name, giver.name)
    return order


def reachable(known: frozenset[str], systems: Sequence[System]) -> frozenset[str]:
    """All identity types that can be known, starting from those a request brings."""
    reached = rounds(systems, known)
    return known | {t for s in systems if s.name in reached for t in s.discovers}


def plan(ask: Ask, workflow: Workflow, systems: Mapping[str, System], clock: Clock) -> Plan:
    """The steps of a request. Raises ``NothingToDo`` or ``CyclicOrder``."""
    concerned = in_scope(ask, workflow, systems.values())
    if not concerned:
        raise NothingToDo("no configured system holds data in the request's scope")
    drafts = _draft(ask, workflow, concerned)
    flow = identity_flow(concerned, ask.identity_types)
    erasing = erasure_order(concerned, ask.identity_types)
    by_name = {s.name: s for s in concerned}
    templates = {t.id: t for t in workflow.steps}
    steps = [_edges(draft, drafts, templates, by_name, flow, erasing) for draft in drafts]
    _refuse_circles(steps)
    return Plan(workflow.name, workflow.version, tuple(steps), deadline(clock, ask.received_at))


@dataclass(frozen=True, slots=True)
class _Draft:
    step: Step
    template: StepTemplate


def _draft(ask: Ask, workflow: Workflow, concerned: Sequence[System]) -> list[_Draft]:
    findable = reachable(ask.identity_types, concerned)
    drafts: list[_Draft] = []
    for template in workflow.steps:
        if template.unless_verified and ask.verified:
            continue
        if template.only_sources is not None and ask.source not in template.only_sources:
            continue
        for name, result in _systems_of(template, concerned, findable):
            state = StepState.WAITING if result is None else StepState.DONE
            step = Step(len(drafts), template.id, name, template.action, state, options=template.options, result=result)
            drafts.append(_Draft(step, template))
    return drafts


def _systems_of(
    template: StepTemplate, concerned: Sequence[System], findable: frozenset[str]
) -> list[tuple[str, Result | None]]:
    """The systems one template becomes steps of, each with the result it has from the start, if any."""
    if template.action is Action.GATE and template.systems is None:
        return [(DESK, None)]
    if template.action is Action.PACKAGE:
        return [(PACKAGER, None)]
    chosen = [s for s in concerned if template.systems is None or s.name in template.systems]
    if template.action in {Action.DISCOVER, Action.VERIFY}:
        return [(s.name, None) for s in chosen if template.action in s.actions]
    return [(s.name, _from_the_start(template, s, findable)) for s in chosen]


def _from_the_start(template: StepTemplate, system: System, findable: frozenset[str]) -> Result | None:
    if template.action in system.cannot or template.action not in system.actions:
        why = system.cannot.get(template.action, f"connector {system.connector} cannot {template.action}")
        return Result(Outcome.UNSUPPORTED, note=why)
    if system.identified_by and not system.identified_by & findable:
        kinds = ", ".join(sorted(system.identified_by))
        return Result(Outcome.UNSUPPORTED, note=f"a person is found there by {kinds} only, and none is known")
    return None


def _edges(
    draft: _Draft,
    drafts: Sequence[_Draft],
    templates: Mapping[str, StepTemplate],
    systems: Mapping[str, System],
    flow: Order,
    erasing: Order,
) -> Step:
    step = draft.step
    needs = _waited_for(draft, drafts, templates, systems)
    for other in drafts:
        if other.step.name == step.name and other.step.ordinal != step.ordinal:
            earlier = {Action.DISCOVER: flow, Action.ERASE: erasing}.get(step.action)
            if earlier is not None and other.step.system in earlier.before(step.system):
                needs.add(other.step.ordinal)
    return Step(
        step.ordinal,
        step.name,
        step.system,
        step.action,
        step.state,
        needs=frozenset(needs),
        options=step.options,
        result=step.result,
    )


def _waited_for(
    draft: _Draft, drafts: Sequence[_Draft], templates: Mapping[str, StepTemplate], systems: Mapping[str, System]
) -> set[int]:
    """What the workflow says comes before a step.

    Where a needed entry has no step here, or not all of its steps are waited for, what it would itself have waited for
    is waited for in its place: a gate holds back what comes after it, also past a discovery that nobody makes.
    """
    step, template = draft.step, draft.template
    found: set[int] = set()
    todo = [*((name, False) for name in template.needs), *((name, True) for name in template.after_same)]
    seen: set[tuple[str, bool]] = set()
    while todo:
        name, same = todo.pop()
        if (name, same) in seen or name not in templates:
            continue
        seen.add((name, same))
        named = [d.step for d in drafts if d.step.name == name and not (same and d.step.system != step.system)]
        waited = [o for o in named if same or _must_wait(step, o, systems)]
        found.update(o.ordinal for o in waited)
        if not waited or len(waited) < len(named):
            skipped = templates[name]
            todo += [*((n, False) for n in skipped.needs), *((n, True) for n in skipped.after_same)]
    return found - {step.ordinal}


def _must_wait(step: Step, other: Step, systems: Mapping[str, System]) -> bool:
    """Whether a needed entry's step matters here: of a discovery, only what can supply identities."""
    if other.action is not Action.DISCOVER or step.system not in systems or step.action is Action.GATE:
        return True
    if other.system == step.system:
        return True
    return bool(systems[other.system].discovers & systems[step.system].identified_by)


def _refuse_circles(steps: Sequence[Step]) -> None:
    order = Order()
    label = {s.ordinal: f"{s.name} in {s.system}" for s in steps}
    for step in steps:
        for need in sorted(step.needs):
            if not order.add(label[need], label[step.ordinal]):
                raise CyclicOrder([*(order.path(label[step.ordinal], label[need]) or []), label[step.ordinal]])
