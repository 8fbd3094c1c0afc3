"""A deployment of Habeas on one database with people in it: real processes, durable servers, somebody who asks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml
from sqlalchemy.engine import make_url

from benchmarks.figures import WrongResult
from orchestrator.core.vocabulary import EventKind
from orchestrator.embedded import EmbeddedPostgres
from orchestrator.publish import Answer, Publisher
from tests.support.deployment import Deployment, eventually
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.reaper import Reaper, end, note_postgres

SECRET = "whsec_YmVuY2htYXJrcy1iZW5jaG1hcmtzLWJlbmNobWFya3M="
SOURCE = "/benchmark/accounts"
POSTGRES = {"fsync": "on", "shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
"""Durable; for the rest what a careful operator sets."""
PATIENCE = 600.0
"""Seconds to wait for answers."""


@dataclass
class Place:
    """What is measured: processes, their servers, and the database of the people."""

    deployment: Deployment
    postgres: EmbeddedPostgres
    rabbitmq: RabbitMQ
    people: str
    """URL of the people's database, as libpq takes it."""

    @contextmanager
    def asking(self) -> Iterator[Publisher]:
        """The upstream service, in this process."""
        url = self.deployment.environment["HABEAS_BROKER_URL"]
        with Publisher(url, source=SOURCE, secret=SECRET, replies="benchmark", timeout=60) as publisher:
            yield publisher

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        """Kind → processes that run now."""
        postmaster = self.postgres.postmaster()
        assert postmaster is not None
        kinds: dict[str, list[psutil.Process]] = {"PostgreSQL": [psutil.Process(postmaster.pid)]}
        kinds["RabbitMQ"] = [psutil.Process(int((self.rabbitmq.folder / "server.pid").read_text()))]
        for name, process in self.deployment.processes.items():
            kinds.setdefault(name.split("-")[0], []).append(psutil.Process(process.pid))
        return {kind: [q for p in roots for q in (p, *p.children(recursive=True))] for kind, roots in kinds.items()}

    def cpu(self) -> dict[str, float]:
        """Kind of process → seconds of CPU used so far, by those that ended too."""
        used: dict[str, float] = {}
        for kind, processes in self.processes().items():
            times = [p.cpu_times() for p in processes]
            ended = sum(t.children_user + t.children_system for t in times)
            used[kind] = sum(t.user + t.system for t in times) + ended
        return used

    def commits(self) -> int:
        """Transactions committed so far, in all databases."""
        with psycopg.connect(self.people) as connection:
            # What a backend did is counted at most a second after.
            connection.execute("SELECT pg_stat_force_next_flush()")
            found = connection.execute("SELECT sum(xact_commit)::bigint FROM pg_stat_database").fetchone()
        assert found is not None
        return int(found[0])


def ask(publisher: Publisher, right: str, emails: Sequence[str]) -> tuple[float, list[Answer]]:
    """Request for all of them; seconds from the first message to the last completion, and the completions.

    Raises ``WrongResult`` unless every request completed.
    """
    verified = {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    began = time.perf_counter()
    waiting = {publisher.request(right, email=email, verification=verified) for email in emails}
    answers: list[Answer] = []
    until = time.monotonic() + PATIENCE
    while waiting and time.monotonic() < until:
        for answer in publisher.answers(timeout=1):
            if answer.final:
                waiting.discard(answer.message_id)
                answers.append(answer)
            if not waiting:
                break
    seconds = time.perf_counter() - began
    wrong = [a for a in answers if a.kind is not EventKind.COMPLETED or a.data["resolution"] != "completed"]
    if waiting or wrong:
        raise WrongResult(f"{right}: {len(waiting)} never completed, {len(wrong)} not as they should")
    return seconds, answers


@contextmanager
def place(
    folder: Path,
    tables: str,
    collections: Sequence[Mapping[str, Any]],
    *,
    processes: int = 2,
    batch: int = 1000,
    **config: Any,
) -> Iterator[Place]:
    """Servers, a database with ``tables`` (SQL) that ``collections`` (of a Fides dataset) describe, and a deployment.

    ``processes``: children of the one worker; ``batch``: steps of a claim and messages of an admission; ``config``:
    more settings of the system.
    """
    with ExitStack() as stack:
        reaper = Reaper()
        stack.callback(reaper.close)
        postgres = EmbeddedPostgres(reaper.folder / "pg", settings=POSTGRES)
        note_postgres(reaper.folder, postgres.data)
        postgres.start()
        stack.callback(_stop, postgres)
        rabbitmq = RabbitMQ(reaper.folder / "mq", reaper.folder).start()
        people = postgres.create_database("people")
        plain = make_url(people).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(tables)
            connection.execute("VACUUM ANALYZE")
        environment = {
            **_files(folder / "definitions", people, collections, batch, config),
            "HABEAS_DATABASE_URL": postgres.create_database("habeas_benchmark"),
            "HABEAS_BROKER_URL": rabbitmq.add_vhost("benchmark"),
            "HABEAS_CLAIM_BATCH": str(batch),
            "HABEAS_INTAKE_BATCH": str(batch),
            "HABEAS_WORKER_PROCESSES": str(processes),
        }
        deployment = Deployment(folder / "deployment", environment)
        stack.callback(deployment.close)
        deployment.habeas("migrate")
        deployment.start("intake", "clock", "worker")
        for name in ("intake", "clock", "worker"):
            log = deployment.directory / f"{name}.1.log"
            eventually(lambda log=log: "process.started" in log.read_text(), f"{name} is up")  # type: ignore[misc]
        yield Place(deployment, postgres, rabbitmq, plain)


def _stop(postgres: EmbeddedPostgres) -> None:
    postmaster = postgres.postmaster()
    if postmaster is not None:
        end(postmaster.pid)


def _files(
    folder: Path, url: str, collections: Sequence[Mapping[str, Any]], batch: int, config: Mapping[str, Any]
) -> dict[str, str]:
    folder.mkdir(parents=True)
    dataset = {"dataset": [{"fides_key": "people", "name": "People", "collections": list(collections)}]}
    (folder / "people.yml").write_text(yaml.safe_dump(dataset, sort_keys=False))
    settings = {"url": url, "datasets": ["people.yml"], **config}
    cannot = dict.fromkeys(("restrict", "suppress"), "nobody asks for it here")
    system = {"name": "people", "connector": "sql", "batch": batch, "cannot": cannot, "config": settings}
    (folder / "systems.yaml").write_text(yaml.safe_dump({"systems": [system]}))
    source = {"source": SOURCE, "secrets": [{"env": "BENCHMARK_SECRET"}], "rights": ["access", "erasure"]}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [{**source, "trusted_to_verify": True}]}))
    return {
        "HABEAS_SYSTEMS": str(folder / "systems.yaml"),
        "HABEAS_SOURCES": str(folder / "sources.yaml"),
        "BENCHMARK_SECRET": SECRET,
    }


def field(name: str, category: str = "user", **meta: Any) -> dict[str, Any]:
    """A field of a collection."""
    return {"name": name, "data_categories": [category], **({"fides_meta": meta} if meta else {})}
