"""Habeas as it is measured: real processes, six steps a request, systems that do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.costs import Costs, Meters, between
from benchmarks.programs import Program, running
from benchmarks.servers import Servers
from orchestrator.broker import topology
from orchestrator.privacy.vault import MasterKeys
from tests.support.deployment import Deployment, eventually

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "/benchmark/accounts"
SECRET = "whsec_YmVuY2htYXJrLWJlbmNobWFyay1iZW5jaG1hcms="
ANSWERS = "whsec_YW5zd2Vycy1hbnN3ZXJzLWFuc3dlcnMtYW5zd2Vycw=="
STEPS = 6
"""Of each request."""
WARM_UP = 500
"""Requests before anything is measured: connections are made, plans and caches warm."""
WORKFLOW = """
workflow: erasure
version: 1
right: erasure
steps:
  - {id: identity, gate: identity_verification, unless_verified: true}
  - {id: discover, action: discover, systems: [accounts], needs: [identity]}
  - {id: erase, action: erase, systems: [crm, mail, orders], needs: [discover]}
  - {id: last, action: erase, systems: [accounts], needs: [erase]}
  - {id: finish, action: verify, systems: [accounts], needs: [last], with: {of: erase}}
"""
"""Discover, three in parallel, the last system, finish; and the identity gate, as evidence is brought."""


@dataclass(frozen=True)
class Size:
    """How much, and with how many processes."""

    requests: int
    intakes: int = 1
    workers: int = 1
    processes: int = 2
    """Of each worker."""
    batch: int = 1000
    """Steps of a claim, and messages of an admission."""

    def in_words(self) -> str:
        """For the report."""
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} of {self.processes} processes"
        return f"{self.intakes} intake, {workers}, 1 clock, batches of {self.batch}, prefork"


@dataclass(frozen=True)
class Measured:
    """One run."""

    requests: int
    seconds: float
    """From the first publish to the last completion received."""
    published: float
    """Seconds until everything was published."""
    costs: Costs

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def six_steps() -> list[dict[str, Any]]:
    """The systems of ``WORKFLOW``: others are found by what ``accounts`` knows."""
    held = {"accounts": {"discovers": ["user_id"]}}
    held |= {name: {"identified_by": ["user_id"]} for name in ("crm", "mail", "orders")}
    return [{"name": name, "connector": "benchmarks.noop:Noop", "config": c} for name, c in held.items()]


def files(folder: Path, workflow: str, systems: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write the definition files; gives the settings that name them."""
    flows = folder / "workflows"
    flows.mkdir(parents=True)
    (flows / "erasure.yaml").write_text(workflow)
    (flows / "regulations.yaml").write_text("regulations:\n  gdpr: {months: 1}\n")
    (flows / "categories.yaml").write_text("categories:\n  all: [user]\n")
    (folder / "systems.yaml").write_text(yaml.safe_dump({"systems": [*systems]}))
    source = {"source": SOURCE, "secrets": [{"env": "BENCHMARK_SECRET"}], "rights": ["erasure"]}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [{**source, "trusted_to_verify": True}]}))
    return {
        "HABEAS_SYSTEMS": str(folder / "systems.yaml"),
        "HABEAS_SOURCES": str(folder / "sources.yaml"),
        "HABEAS_WORKFLOWS": str(flows),
        "HABEAS_MASTER_KEY": MasterKeys.generate("benchmark"),
        "HABEAS_EVENT_SECRET": ANSWERS,
        "BENCHMARK_SECRET": SECRET,
        "BENCHMARK_SOURCE": SOURCE,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
    }


@contextmanager
def deployed(
    folder: Path,
    on: Servers,
    name: str,
    batch: int,
    workflow: str = WORKFLOW,
    systems: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Deployment]:
    """A deployment of its own on the servers: a fresh database, a fresh vhost; migrated, not started.

    ``batch``: steps of a claim, messages of an admission; ``systems``: those of ``six_steps`` unless given.
    """
    deployment = Deployment(
        folder,
        {
            **files(folder / "definitions", workflow, systems or six_steps()),
            "HABEAS_DATABASE_URL": on.postgres.create_database(name),
            "HABEAS_BROKER_URL": on.rabbitmq.add_vhost(name),
            "HABEAS_CLAIM_BATCH": str(batch),
            "HABEAS_INTAKE_BATCH": str(batch),
        },
    )
    try:
        deployment.habeas("migrate")
        yield deployment
    finally:
        deployment.close()


def start(deployment: Deployment, size: Size) -> None:
    """Start the processes, and wait until they are up."""
    others = [*(_numbered("intake", n) for n in range(size.intakes)), "clock"]
    workers = [_numbered("worker", n) for n in range(size.workers)]
    deployment.start(*others)
    deployment.start(*workers, arguments=("-c", str(size.processes)))
    await_up(deployment, *others, *workers)


def await_up(deployment: Deployment, *names: str) -> None:
    """Until these processes are up."""
    for name in names:
        log = deployment.directory / f"{name}.1.log"
        eventually(partial(_says, log, "process.started"), f"{name} is up")


def _says(log: Path, event: str) -> bool:
    return event in log.read_text(errors="replace")


def _numbered(kind: str, n: int) -> str:
    return kind if n == 0 else f"{kind}-{n + 1}"


def meters(deployment: Deployment, on: Servers, sender: int) -> Meters:
    """Of all that takes part."""
    kinds: dict[str, list[int]] = {"publisher": [sender]}
    for name, process in deployment.processes.items():
        kinds.setdefault(name.split("-")[0], []).append(process.pid)
    postmaster = on.postgres.postmaster()
    assert postmaster is not None
    kinds["PostgreSQL"] = [postmaster.pid]
    kinds["RabbitMQ"] = [int((on.rabbitmq.folder / "server.pid").read_text())]
    return Meters(kinds, topology.libpq(deployment.environment["HABEAS_DATABASE_URL"]), on.rabbitmq)


def sending(deployment: Deployment) -> AbstractContextManager[Program]:
    """The upstream service's process."""
    log = deployment.directory / "sender.log"
    return running("benchmarks.orchestration.sender", environment=deployment.environment, log=log)


def measure(folder: Path, on: Servers, name: str, size: Size) -> Measured:
    """Run it once, warmed up. Raises ``WrongResult`` unless every request completed, with all its steps."""
    with deployed(folder, on, name, size.batch) as deployment, sending(deployment) as sender:
        start(deployment, size)
        sender.ask("many", min(WARM_UP, size.requests), STEPS)
        reading = meters(deployment, on, sender.process.pid)
        before = reading.read()
        found = sender.ask("many", size.requests, STEPS)
        after = reading.read()
        return Measured(size.requests, found["seconds"], found["published"], between(before, after, size.requests))


def drained(folder: Path, on: Servers, name: str, size: Size) -> float:
    """Requests a second when all are published before intake starts: from its start to the last completion received."""
    with deployed(folder, on, name, size.batch) as deployment, sending(deployment) as sender:
        start(deployment, size)
        sender.ask("many", min(WARM_UP, size.requests), STEPS)
        for n in range(size.intakes):
            deployment.stop(_numbered("intake", n))
        sender.ask("before", size.requests)
        began = time.perf_counter()
        deployment.start(*(_numbered("intake", n) for n in range(size.intakes)))
        sender.ask("drain", STEPS)
        return size.requests / (time.perf_counter() - began)
