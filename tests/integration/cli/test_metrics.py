"""Metrics tell the truth of the database, cheaply, and survive its absence."""

from __future__ import annotations

import threading
import urllib.request
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from connectors.contract import Fatal, Pending
from orchestrator.store import figures
from orchestrator.store.database import Database
from orchestrator.web.health import Health, serve
from orchestrator.web.metrics import Metrics
from tests.support.scripted import system
from tests.support.servers.ports import free_ports
from tests.support.worlds import ONE_STEP, MakeWorld, World, delivery

MAIL = "ada@example.org"


def scraped(metrics: Metrics) -> dict[str, float]:
    """Name and labels → value."""
    return {
        ",".join([s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))]): s.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for s in family.samples
    }


def fresh(world: World) -> dict[str, float]:
    metrics = Metrics(world.runtime.database, world.settings)
    try:
        return scraped(metrics)
    finally:
        metrics.close()


def test_steps_are_counted_by_system_and_state_and_the_oldest_ready_is_timed(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("erp"), workflows=[ONE_STEP])
    world.connector("crm").on("b@example.org", Fatal("no"))
    world.connector("crm").on("c@example.org", Pending({}, timedelta(days=3), "the vendor"))
    for name in "abc":
        world.ask("erasure", f"{name}@example.org")
    world.work("crm")
    world.claim("erp", n=1)
    world.later(timedelta(minutes=5))
    seen = fresh(world)
    assert seen["habeas_database_up"] == seen["habeas_up"] == 1
    assert {k: v for k, v in seen.items() if k.startswith("habeas_steps,") and v} == {
        "habeas_steps,state=attention,system=crm": 1,
        "habeas_steps,state=parked,system=crm": 1,
        "habeas_steps,state=ready,system=erp": 2,
        "habeas_steps,state=running,system=erp": 1,
    }
    assert 300 <= seen["habeas_oldest_ready_seconds,system=erp"] < 400
    assert seen["habeas_oldest_ready_seconds,system=crm"] == 0


def test_requests_are_counted_as_they_come_and_close_without_counting_rows(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.connector("crm").on("b@example.org", Fatal("no"))
    world.admit(*(delivery("erasure", f"{n}@example.org") for n in "abc"))
    world.ask("access", MAIL)
    world.work()
    request = world.ask("erasure", "d@example.org")
    world.runtime.operate.cancel(request, "eve", "withdrawn")
    late = world.ask("erasure", "e@example.org")
    world.rows("UPDATE request SET deadline = now() - interval '1 day' WHERE id = :id", id=late)
    seen = fresh(world)
    assert {k.removeprefix("habeas_requests"): v for k, v in seen.items() if k.startswith("habeas_requests") and v} == {
        "_admitted_total,right=erasure": 5,
        "_admitted_total,right=access": 1,
        "_closed_total,resolution=completed,right=erasure": 2,
        "_closed_total,resolution=completed,right=access": 1,
        "_closed_total,resolution=cancelled,right=erasure": 1,
        ",right=erasure,state=attention": 1,
        ",right=erasure,state=open": 1,
    }
    assert seen["habeas_overdue_requests"] == 1


def test_the_tally_agrees_with_the_rows_whatever_happened(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    for n in range(12):
        if n % 3 == 0:
            world.connector("crm").on(f"p{n}@example.org", Fatal("no"))
    world.admit(*(delivery("erasure" if n % 2 else "objection", f"p{n}@example.org") for n in range(12)))
    world.work()
    world.runtime.operate.skip_all("crm", "eve", "gone")
    world.work()
    closed = 'SELECT "right", resolution, count(*) AS n FROM request WHERE resolution IS NOT NULL GROUP BY 1, 2'
    counted = {(r.right, r.resolution): r.n for r in world.rows(closed)}
    with world.runtime.database.transaction() as tx:
        numbers = figures.read(tx)
    assert numbers.closed == counted
    assert sum(numbers.open.values()) == world.one("SELECT count(*) FROM request WHERE resolution IS NULL")


def test_switches_fences_events_and_refusals_are_told(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), system("erp"), workflows=[ONE_STEP])
    world.runtime.operate.pause_system("erp", "eve", "a migration")
    world.rows("UPDATE connector_state SET breaker_until = now() + interval '1 min', fenced = 4 WHERE system = 'crm'")
    world.ask("erasure", MAIL)
    world.admit(delivery("erasure", MAIL, source="urn:x"), delivery("erasure", MAIL, source="urn:x"))
    world.rows("UPDATE outbox SET created_at = now() - interval '1 min'")
    seen = fresh(world)
    assert (seen["habeas_system_paused,system=erp"], seen["habeas_system_paused,system=crm"]) == (1, 0)
    assert seen["habeas_breaker_open,system=crm"] == 1
    assert seen["habeas_fenced_settles_total,system=crm"] == 4
    assert seen["habeas_outbox_unpublished"] == 3
    assert seen["habeas_outbox_lag_seconds"] >= 60
    assert seen["habeas_quarantined,reason=unknown_source"] == 2
    world.rows("UPDATE quarantine SET replayed_at = now()")
    assert fresh(world)["habeas_quarantined,reason=unknown_source"] == 0


def test_metrics_are_served_over_http_beside_health(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    metrics, health = Metrics(world.runtime.database, world.settings), Health()
    health.report("database", well=True)
    (port,) = free_ports(1)
    server = serve(health, metrics.render, "127.0.0.1", port)
    assert server is not None
    try:
        answers = {}
        for path in ("livez", "readyz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                answers[path] = (answer.status, answer.headers["Content-Type"], answer.read().decode())
    finally:
        server.shutdown()
        server.server_close()
        metrics.close()
    assert [status for status, _, _ in answers.values()] == [200, 200, 200]
    assert answers["metrics"][1].startswith("text/plain")
    assert "# TYPE habeas_steps gauge" in answers["metrics"][2]


def test_nothing_that_is_told_names_a_person(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    world.ask("erasure", MAIL)
    metrics = Metrics(world.runtime.database, world.settings)
    assert MAIL not in metrics.render().decode()
    metrics.close()


def test_a_storm_of_scrapes_reads_once_and_the_next_look_is_fresh(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    now = [0.0]
    metrics = Metrics(world.runtime.database, world.settings, clock=lambda: now[0])
    key = "habeas_requests_admitted_total,right=erasure"
    assert scraped(metrics)[key] == 0
    world.ask("erasure", MAIL)
    seen: list[float] = []
    threads = [threading.Thread(target=lambda: seen.append(scraped(metrics)[key])) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * 20
    now[0] += 3
    assert scraped(metrics)[key] == 1
    metrics.close()


def test_without_a_database_the_process_still_answers(make_world: MakeWorld) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    metrics = Metrics(Database("postgresql://127.0.0.1:9/none"), world.settings)
    seen = scraped(metrics)
    assert (seen["habeas_up"], seen["habeas_database_up"]) == (1, 0)
    assert not any(k.startswith("habeas_steps") for k in seen)
    assert any(k.startswith("process_resident_memory_bytes") for k in seen)
    metrics.close()
