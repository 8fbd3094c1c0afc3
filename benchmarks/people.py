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

from benchmarks.costs import Meters
from benchmarks.figures import WrongResult
from benchmarks.servers import Servers, servers
from orchestrator.broker import topology
from orchestrator.core.vocabulary import EventKind
from orchestrator.publish import Answer, Options, Publisher
from tests.support.deployment import Deployment, eventually

SECRET = "whsec_YmVuY2htYXJrcy1iZW5jaG1hcmtzLWJlbmNobWFya3M="
SOURCE = "/benchmark/accounts"
NAME = "habeas_benchmark"
PATIENCE = 600.0
"""Seconds to wait for answers."""
CHUNK = 500
"""Requests published before answers are looked at."""


@dataclass
class Place:
    """What is measured: processes, their servers, and the database of the people."""

    deployment: Deployment
    servers: Servers
    people: str
    """URL of the people's database, as libpq takes it."""

    @contextmanager
    def asking(self) -> Iterator[Publisher]:
        """The upstream service, in this process."""
        url = self.deployment.environment["HABEAS_BROKER_URL"]
        with Publisher(url, source=SOURCE, secret=SECRET, replies="benchmark", timeout=60) as publisher:
            yield publisher

    def workers(self) -> Sequence[psutil.Process]:
        """The processes of the worker."""
        root = psutil.Process(self.deployment.processes["worker"].pid)
        return [root, *root.children(recursive=True)]

    def meters(self) -> Meters:
        """Of all that takes part, beside the publisher."""
        kinds = {name: [process.pid] for name, process in self.deployment.processes.items()}
        postmaster = self.servers.postgres.postmaster()
        assert postmaster is not None
        kinds["PostgreSQL"] = [postmaster.pid]
        kinds["RabbitMQ"] = [int((self.servers.rabbitmq.folder / "server.pid").read_text())]
        return Meters(kinds, topology.libpq(self.deployment.environment["HABEAS_DATABASE_URL"]))

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
    waiting: set[str] = set()
    answers: dict[str, Answer] = {}

    def hear(timeout: float) -> None:
        for answer in publisher.answers(timeout=timeout):
            if answer.final and answer.message_id in waiting:  # an earlier one may come again
                answers[answer.message_id] = answer
            if timeout and len(answers) == len(emails):
                return

    for start in range(0, len(emails), CHUNK):
        chunk = emails[start : start + CHUNK]
        waiting.update(publisher.request_many(right, (Options(email=e, verification=verified) for e in chunk)))
        hear(0)
    until = time.monotonic() + PATIENCE
    while len(answers) < len(emails) and time.monotonic() < until:
        hear(1)
    seconds = time.perf_counter() - began
    wrong = [a for a in answers.values() if a.kind is not EventKind.COMPLETED or a.data["resolution"] != "completed"]
    if waiting - set(answers) or wrong:
        raise WrongResult(f"{right}: {len(waiting - set(answers))} never completed, {len(wrong)} not as they should")
    return seconds, list(answers.values())


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
        on = stack.enter_context(servers())
        people = on.postgres.create_database("people")
        plain = make_url(people).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(tables)
            connection.execute("VACUUM ANALYZE")
        environment = {
            **_files(folder / "definitions", people, collections, batch, config),
            "HABEAS_DATABASE_URL": on.postgres.create_database(NAME),
            "HABEAS_BROKER_URL": on.rabbitmq.add_vhost(NAME),
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
        yield Place(deployment, on, plain)


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
