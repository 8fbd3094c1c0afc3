"""What must hold between definition files: names resolve, no circles, all categories reached, all actions possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from orchestrator.core.model import Ask, Clock, StepTemplate, System, Workflow
from orchestrator.core.planner import DESK, PACKAGER, CyclicOrder, NothingToDo, Order, erasure_order, overlap, plan
from orchestrator.core.vocabulary import Action, Right
from orchestrator.definitions.yamlfile import Document
from orchestrator.errors import Fault

_PER_RIGHT = {
    Right.ACCESS: Action.ACCESS,
    Right.PORTABILITY: Action.ACCESS,
    Right.RECTIFICATION: Action.RECTIFY,
    Right.ERASURE: Action.ERASE,
    Right.RESTRICTION: Action.RESTRICT,
    Right.OBJECTION: Action.SUPPRESS,
}
"""The action without which a workflow does not carry out its right."""


def workflows(
    flows: Mapping[Right, Workflow], documents: Mapping[Right, Document], systems: Mapping[str, System]
) -> list[Fault]:
    """Each workflow's own names and order; and that it does what its right is about."""
    faults: list[Fault] = []
    for right, flow in flows.items():
        document = documents[right]
        faults += _names(flow, document, systems)
        if not any(t.action is _PER_RIGHT[right] for t in flow.steps):
            faults.append(
                document.fault(("steps",), f"a workflow for {right} needs a step with action: {_PER_RIGHT[right]}")
            )
        faults += _circles(flow, document, systems)
    return faults


def _names(flow: Workflow, document: Document, systems: Mapping[str, System]) -> list[Fault]:
    faults: list[Fault] = []
    ids = [t.id for t in flow.steps]
    for n, template in enumerate(flow.steps):
        where = ("steps", n)
        if template.id in ids[:n]:
            faults.append(document.fault((*where, "id"), f"there are two steps named {template.id!r}"))
        for key, others in (("needs", template.needs), ("after_same", template.after_same)):
            faults += [
                document.fault((*where, key), f"{template.id} {key.replace('_', ' ')} {o!r}, and there is no such step")
                for o in others
                if o not in ids
            ]
        for name in template.systems or ():
            faults += _named_system(template, name, document, (*where, "systems"), systems)
    return faults


def _named_system(
    template: StepTemplate, name: str, document: Document, where: tuple[str | int, ...], systems: Mapping[str, System]
) -> list[Fault]:
    if name not in systems:
        known = ", ".join(sorted(systems.keys() - {DESK, PACKAGER}))
        return [document.fault(where, f"{template.id}: there is no system {name!r}; there are: {known}")]
    if template.action not in systems[name].actions:
        why = systems[name].cannot.get(template.action, f"its connector {systems[name].connector} has no such action")
        return [document.fault(where, f"{template.id}: system {name!r} cannot {template.action} ({why})")]
    return []


def _circles(flow: Workflow, document: Document, systems: Mapping[str, System]) -> list[Fault]:
    order = Order()
    for n, template in enumerate(flow.steps):
        for need in (*template.needs, *template.after_same):
            if not order.add(need, template.id):
                path = " → ".join([*(order.path(template.id, need) or [need]), template.id])
                return [document.fault(("steps", n), f"the steps need each other in a circle: {path}")]
    try:
        erasure_order([s for s in systems.values() if s.name not in {DESK, PACKAGER}])
    except CyclicOrder:
        return []  # named by erase_order, at its own place
    types = frozenset(t for s in systems.values() for t in s.identified_by)
    ask = Ask(flow.right, "any", "any", datetime.now(UTC), types)
    try:
        plan(ask, flow, systems, Clock("any"))
    except CyclicOrder as circle:
        return [document.fault(("steps",), f"the steps need each other in a circle: {circle}")]
    except NothingToDo:
        return [document.fault(("categories",), "no system holds any data of these categories")]
    return []


def erase_order(systems: Mapping[str, System], document: Document) -> list[Fault]:
    """``erase_after`` names systems that exist, and no circle."""
    faults: list[Fault] = []
    for n, name in _positions(document):
        system = systems.get(name)
        for other in sorted(system.erase_after if system else ()):
            if other not in systems:
                where = ("systems", n, "erase_after")
                faults.append(document.fault(where, f"{name} is erased after {other!r}, and there is no such system"))
    try:
        erasure_order(list(systems.values()))
    except CyclicOrder as circle:
        faults.append(document.fault(("systems",), f"erase_after runs in a circle: {circle}"))
    return faults


def coverage(
    categories: Mapping[str, Iterable[str]], systems: Mapping[str, System], document: Document, policy: Document
) -> list[Fault]:
    """Every category of the policy is held by some system, and every system's data belongs to some category."""
    faults = [
        policy.fault(("categories", name), f"no system holds data of the policy's category {name!r}")
        for name, keys in categories.items()
        if not any(overlap(s.categories, keys) for s in systems.values())
    ]
    known = [k for keys in categories.values() for k in keys]
    for n, name in _positions(document):
        system = systems.get(name)
        for held in sorted(system.categories if system else ()):
            if not overlap([held], known):
                message = f"{name} holds {held!r}, which no category of the policy covers"
                faults.append(document.fault(("systems", n), message))
    return faults


def capabilities(flows: Mapping[Right, Workflow], systems: Mapping[str, System], document: Document) -> list[Fault]:
    """A system that can't do what a workflow asks of all systems says why, so that answers can."""
    faults: list[Fault] = []
    for n, name in _positions(document):
        system = systems.get(name)
        if system is None:
            continue
        wanted = {
            t.action
            for flow in flows.values()
            for t in flow.steps
            if t.systems is None and t.action in _PER_RIGHT.values() and overlap(system.categories, flow.categories)
        }
        for action in sorted(wanted - system.actions - set(system.cannot)):
            message = (
                f"{name} cannot {action} ({system.connector} has no such action); say why: cannot: {{{action}: …}}"
            )
            faults.append(document.fault(("systems", n), message))
    return faults


def _positions(document: Document) -> list[tuple[int, str]]:
    return [(n, str(entry.get("name"))) for n, entry in enumerate(document.data.get("systems", []))]
