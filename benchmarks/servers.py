"""Servers of a benchmark alone: private, on free ports, gone with it however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.embedded import EmbeddedPostgres
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.reaper import Reaper, end, note_postgres
from tests.support.servers.redis import Redis

POSTGRES = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "shared_preload_libraries": "pg_stat_statements",
}
"""What a careful operator sets on a machine of its size; durable."""
IN_WORDS = ", ".join(f"{name} {value}" for name, value in POSTGRES.items())


@dataclass
class Servers:
    """Started when first asked for."""

    reaper: Path
    """The folder whose processes end with the benchmark."""
    settings: dict[str, str] = field(default_factory=dict)
    """PostgreSQL's, over ``POSTGRES``."""
    _postgres: EmbeddedPostgres | None = None
    _rabbitmq: RabbitMQ | None = None
    _redis: Redis | None = None

    @property
    def postgres(self) -> EmbeddedPostgres:
        """PostgreSQL with ``fsync`` on."""
        if self._postgres is None:
            self._postgres = EmbeddedPostgres(self.reaper / "pg", settings={**POSTGRES, **self.settings})
            note_postgres(self.reaper, self._postgres.data)
            self._postgres.start()
        return self._postgres

    def restart_postgres(self, **settings: str) -> EmbeddedPostgres:
        """The same databases under other settings, over ``POSTGRES``; nobody may be connected."""
        self.postgres.stop()
        # What was written while ``fsync`` was off may still be on its way to the disk.
        os.sync()
        self.settings = settings
        self._postgres = None
        return self.postgres

    @property
    def rabbitmq(self) -> RabbitMQ:
        """RabbitMQ as Debian packages it."""
        if self._rabbitmq is None:
            self._rabbitmq = RabbitMQ(self.reaper / "mq", self.reaper).start()
        return self._rabbitmq

    @property
    def redis(self) -> Redis:
        """Redis with its own defaults."""
        if self._redis is None:
            self._redis = Redis(self.reaper / "redis", self.reaper).start()
        return self._redis


@contextmanager
def servers(**settings: str) -> Iterator[Servers]:
    """Servers for the length of a benchmark. ``settings``: PostgreSQL's, over ``POSTGRES``."""
    reaper = Reaper()
    try:
        yield Servers(reaper.folder, settings)
    finally:
        postmaster = EmbeddedPostgres(reaper.folder / "pg").postmaster()
        if postmaster is not None:
            end(postmaster.pid)
        reaper.close()
