"""What a stretch of work costs: CPU by kind of process, statements, commits and WAL of PostgreSQL, broker messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil
import psycopg

from tests.support.servers.rabbitmq import RabbitMQ


@dataclass(frozen=True)
class Reading:
    """The meters at one moment."""

    cpu: Mapping[str, float]
    """Kind of process → CPU seconds so far."""
    commits: int
    statements: int
    wal: int
    """Bytes."""
    published: int
    """Messages that the broker took."""
    delivered: int


@dataclass(frozen=True)
class Costs:
    """Between two readings, for each request."""

    cpu_ms: Mapping[str, float]
    commits: float
    statements: float
    wal_bytes: float
    published: float
    delivered: float

    def lines(self) -> list[str]:
        """For people."""
        cpu = ", ".join(f"{kind} {ms:.2f}" for kind, ms in self.cpu_ms.items())
        sql = f"{self.statements:.2f} statements, {self.commits:.2f} commits, {self.wal_bytes:,.0f} bytes of WAL"
        return [
            f"CPU ms per request: {sum(self.cpu_ms.values()):.2f} ({cpu})",
            f"PostgreSQL per request: {sql}",
            f"messages per request: {self.published:.2f} to the broker, {self.delivered:.2f} from it",
        ]


class Meters:
    """Reads them. Where a server is not given, its meters stand at 0."""

    def __init__(
        self, processes: Mapping[str, Sequence[int]], database: str = "", rabbitmq: RabbitMQ | None = None
    ) -> None:
        """``processes``: kind → process ids, children included; ``database``: for libpq, on one of ``servers``."""
        self._processes, self._database, self._rabbitmq = processes, database, rabbitmq

    def read(self) -> Reading:
        """Now."""
        cpu = {kind: sum(map(seconds_of, pids)) for kind, pids in self._processes.items()}
        commits, statements, wal = self._postgres()
        published, delivered = self._broker()
        return Reading(cpu, commits, statements, wal, published, delivered)

    def _postgres(self) -> tuple[int, int, int]:
        if not self._database:
            return 0, 0, 0
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            row = connection.execute(
                "SELECT (SELECT sum(xact_commit)::bigint FROM pg_stat_database WHERE datname = current_database()), "
                "(SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements), pg_current_wal_lsn() - '0/0'"
            ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1]), int(row[2])

    def _broker(self) -> tuple[int, int]:
        if self._rabbitmq is None:
            return 0, 0
        # The counters themselves: the HTTP API tells them up to five seconds late.
        text = self._rabbitmq.ctl("eval", "rabbit_global_counters:overview().")
        return _sum(text, "messages_received_total"), _sum(text, "messages_delivered_total")


def between(before: Reading, after: Reading, requests: int) -> Costs:
    """What each request cost."""
    return Costs(
        {kind: (after.cpu[kind] - before.cpu[kind]) * 1000 / requests for kind in after.cpu},
        (after.commits - before.commits) / requests,
        (after.statements - before.statements) / requests,
        (after.wal - before.wal) / requests,
        (after.published - before.published) / requests,
        (after.delivered - before.delivered) / requests,
    )


def seconds_of(pid: int) -> float:
    """CPU seconds of a process, its children, and those of its children that have ended."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        own = root.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)
    return 0.0


def _sum(text: str, counter: str) -> int:
    return sum(int(n) for n in re.findall(rf"\b{counter},(\d+)", text)) or sum(
        int(n) for n in re.findall(rf"\b{counter}\s*=>\s*(\d+)", text)
    )
