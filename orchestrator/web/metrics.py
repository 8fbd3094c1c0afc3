"""Prometheus metrics, read from the database at scrape time.

What a scrape costs is bounded: the figures are kept for a while, longer when they took long to read, and however many
scrapes come at once, one reads and the others get what is there. No label holds personal data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.core.vocabulary import Resolution, Right
from orchestrator.errors import Refusal, Unavailable
from orchestrator.settings import Settings
from orchestrator.store import figures
from orchestrator.store.database import Database
from orchestrator.store.figures import Figures

_log = logs.get("metrics")

KEEP = 2.0
"""Seconds that figures are kept at least."""
SHARE = 50.0
"""They are kept this many times as long as reading them took: scrapes never take more than a fiftieth of a backend."""
LONGEST = 60.0
"""Seconds that they are kept at most."""
STATES = ("ready", "running", "parked", "attention")

_Families = Iterator[Metric]
_Key = TypeVar("_Key", bound=tuple[str, ...])


class Metrics:
    """Renders metrics. Thread-safe."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads over a connection of its own: the process's pool is for work, and must not be held while it forks."""
        url = database.url.render_as_string(hide_password=False)
        self._database = Database(url, pool=1, name="habeas metrics")
        self._clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Store(self._figures))
        self._registry.register(_About(settings))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._lock = threading.Lock()
        self._kept: Figures | None = None
        self._until = float("-inf")

    def render(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Let go of the connection."""
        self._database.close()

    def _figures(self) -> Figures | None:
        """The figures, as of a moment ago; ``None`` when the database does not give them."""
        if self._clock() < self._until or not self._lock.acquire(blocking=self._kept is None):
            return self._kept
        try:
            if self._clock() < self._until:
                return self._kept
            began = self._clock()
            self._kept = self._read()
            ended = self._clock()
            took = ended - began if self._kept is not None else 0.0
            self._until = ended + min(max(KEEP, SHARE * took), LONGEST)
        finally:
            self._lock.release()
        return self._kept

    def _read(self) -> Figures | None:
        try:
            with self._database.transaction() as tx:
                return figures.read(tx)
        except (Unavailable, SQLAlchemyError) as error:
            _log.warning("database.unavailable", error=type(error).__name__)
            return None


class _Store(Collector):
    """What the database knows: the same whichever process is asked."""

    def __init__(self, read: Callable[[], Figures | None]) -> None:
        self._read = read

    def collect(self) -> _Families:
        now = self._read()
        text = "1 when the database could be read; without it only this and the process's own metrics are there."
        yield _gauge("habeas_database_up", text, {(): now is not None})
        if now is None:
            return
        yield from _work(now)
        yield from _requests(now)
        yield from _messages(now)


def _work(now: Figures) -> _Families:
    by_state = {(name, state): s.steps.get(state, 0) for name, s in now.systems.items() for state in STATES}
    yield _gauge("habeas_steps", "Steps that are not settled, by system and state.", by_state, "system", "state")
    oldest = {(name,): s.oldest_ready for name, s in now.systems.items()}
    yield _gauge(
        "habeas_oldest_ready_seconds", "How long the oldest ready step has waited to be taken.", oldest, "system"
    )
    paused = {(name,): s.paused for name, s in now.systems.items()}
    yield _gauge("habeas_system_paused", "1 while an operator keeps a system paused.", paused, "system")
    breaker = {(name,): s.breaker_open for name, s in now.systems.items()}
    yield _gauge("habeas_breaker_open", "1 while a system's circuit breaker keeps work off it.", breaker, "system")
    fenced = {(name,): s.fenced for name, s in now.systems.items()}
    yield _counter("habeas_fenced_settles", "Results that came after their lease was lost.", fenced, "system")


def _requests(now: Figures) -> _Families:
    states: dict[tuple[str, ...], float] = {}
    for right in Right:
        wanting = now.attention.get(right, 0)
        states[right, "attention"] = wanting
        states[right, "open"] = max(0, now.open.get(right, 0) - wanting)
    text = "Open requests by right; attention: at least one step wants an operator."
    yield _gauge("habeas_requests", text, states, "right", "state")
    admitted: dict[tuple[str, ...], float] = {(right,): now.admitted.get(right, 0) for right in Right}
    yield _counter("habeas_requests_admitted", "Requests taken in.", admitted, "right")
    closed: dict[tuple[str, ...], float] = {(r, how): now.closed.get((r, how), 0) for r in Right for how in Resolution}
    yield _counter("habeas_requests_closed", "Requests closed, by right and resolution.", closed, "right", "resolution")
    yield _gauge("habeas_overdue_requests", "Open requests past their legal deadline.", {(): now.overdue})


def _messages(now: Figures) -> _Families:
    unpublished = {(): now.outbox_unpublished}
    yield _gauge("habeas_outbox_unpublished", "Events that the broker has not confirmed yet.", unpublished)
    yield _gauge("habeas_outbox_lag_seconds", "How long the oldest of them has waited.", {(): now.outbox_lag})
    refused: dict[tuple[str, ...], float] = {(reason,): now.quarantined.get(reason, 0) for reason in Refusal}
    yield _gauge("habeas_quarantined", "Refused messages that nobody has replayed.", refused, "reason")


class _About(Collector):
    """What the process knows of itself."""

    def __init__(self, settings: Settings) -> None:
        self._labels = (metadata.version("habeas"), settings.event_source)

    def collect(self) -> _Families:
        yield _gauge("habeas_up", "1: the process answers.", {(): 1})
        yield _gauge(
            "habeas_info", "The version and event source of this process.", {self._labels: 1}, "version", "source"
        )


def _gauge(name: str, text: str, values: Mapping[_Key, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(part) for part in key], float(value))
    return family


def _counter(name: str, text: str, values: Mapping[_Key, float], *labels: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(part) for part in key], float(value))
    return family


def catalogue() -> list[tuple[str, str, str, str]]:
    """Every metric of ours: name, kind, labels, meaning. The documentation's table is made from this."""
    everything = Figures({"users": figures.SystemFigures({}, 0.0, False, False, 0)}, {})  # noqa: FBT003 - an example
    families = [*_Store(lambda: everything).collect(), *_About(Settings()).collect()]
    found = []
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels})
        found.append((name, family.type, ", ".join(labels), family.documentation))
    return found
