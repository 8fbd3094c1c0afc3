"""Planning requests from the loaded definitions, with the plans of equal requests kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from orchestrator.core import machine, planner
from orchestrator.core.clocks import deadline
from orchestrator.core.commands import Command
from orchestrator.core.model import Ask, Run, System
from orchestrator.core.vocabulary import Right
from orchestrator.definitions.loader import Definitions
from orchestrator.errors import Fault, Refusal, RefusedMessage
from orchestrator.messages.request import RightsRequest

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_ROUTES_KEPT = 4096
_DEADLINES_KEPT = 64


_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Route:
    """What requests that ask the same of the same systems share: the plan, begun."""

    workflow: str
    version: int
    run: Run
    """Nobody's: as a run is once its first steps are released."""
    commands: tuple[Command, ...]
    """What is to be done when one of them begins."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A request's route, and by when it should be at its end."""

    route: Route
    deadline: datetime

    def run(self, request: UUID) -> Run:
        """The request's run, begun."""
        return replace(self.route.run, request=request, deadline=self.deadline)


class Planner:
    """From a request to its plan. Two requests that ask the same of the same systems share one route."""

    def __init__(self, definitions: Definitions, default_regulation: str) -> None:
        """``default_regulation``: for requests whose source and message name none."""
        self._definitions = definitions
        self._default = default_regulation
        self._route = lru_cache(maxsize=_ROUTES_KEPT)(self._plan)
        self._deadline = lru_cache(maxsize=_DEADLINES_KEPT)(deadline)  # what came together has one

    @property
    def systems(self) -> Mapping[str, System]:
        """The configured systems."""
        return self._definitions.systems

    def regulation(self, request: RightsRequest) -> str:
        """The regulation that a request falls under. Raises ``RefusedMessage`` for one that is not configured."""
        name = request.regulation or self._default
        if name not in self._definitions.clocks:
            known = ", ".join(sorted(self._definitions.clocks))
            hint = f"is not configured here; use one of: {known}"
            raise RefusedMessage(Refusal.UNKNOWN_REGULATION, faults=[Fault(hint, "regulation")])
        return name

    def keep_days(self, request: RightsRequest) -> int:
        """How long the request's sealed data is kept after closing."""
        return self._definitions.workflows[request.right].keep.days

    def plan(self, request: RightsRequest) -> Planned:
        """The request's plan. Raises ``RefusedMessage`` when it asks for what is not configured here."""
        workflow = self._definitions.workflows.get(request.right)
        if workflow is None:
            raise RefusedMessage(
                Refusal.UNKNOWN_RIGHT, faults=[Fault("no workflow is defined for this right", "right")]
            )
        unknown = sorted((request.systems or frozenset()) - self._definitions.systems.keys())
        if unknown:
            known = ", ".join(sorted(self._definitions.systems.keys() - {planner.DESK, planner.PACKAGER}))
            hint = f"names a system that is not configured here; there are: {known}"
            raise RefusedMessage(Refusal.UNKNOWN_SYSTEM, faults=[Fault(hint, "scope.systems")])
        clock = self._definitions.clocks[self.regulation(request)]
        types = frozenset([i.type for i in request.identities])
        try:
            route = self._route(
                request.right,
                clock.regulation,
                request.source,
                types,
                request.verified,
                request.systems,
                self.fides(request.categories),
            )
        except planner.NothingToDo:
            hint = "no configured system holds data in this scope; widen it or leave it out"
            raise RefusedMessage(Refusal.UNKNOWN_SYSTEM, faults=[Fault(hint, "scope")]) from None
        return Planned(route, self._deadline(clock, request.received_at))

    def fides(self, categories: frozenset[str] | None) -> frozenset[str] | None:
        """Data categories as Fides keys; the policy's own names stand for the keys they group."""
        if categories is None:
            return None
        groups = self._definitions.categories
        return frozenset(key for c in categories for key in groups.get(c, frozenset({c})))

    def _plan(
        self,
        right: Right,
        regulation: str,
        source: str,
        identity_types: frozenset[str],
        verified: bool,  # noqa: FBT001 - the same
        systems: frozenset[str] | None,
        categories: frozenset[str] | None,
    ) -> Route:
        ask = Ask(
            right=right,
            regulation=regulation,
            source=source,
            received_at=_ANY_TIME,
            identity_types=identity_types,
            verified=verified,
            systems=systems,
            categories=categories,
        )
        definitions = self._definitions
        plan = planner.plan(ask, definitions.workflows[right], definitions.systems, definitions.clocks[regulation])
        run, commands = machine.begin(Run(_NOBODY, right, plan.steps, plan.deadline))
        return Route(plan.workflow, plan.version, run, commands)
