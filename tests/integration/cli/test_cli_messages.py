"""Submitting, and what becomes of refused messages, on both brokers."""

from __future__ import annotations

import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import make_url

from orchestrator.broker.consumer import IntakeConsumer
from orchestrator.broker.relay import Relay
from orchestrator.embedded import install_pgmq
from orchestrator.store import trail
from tests.support.command_line import CommandLine, MakeCommandLine
from tests.support.deployment import eventually
from tests.support.scripted import system
from tests.support.worlds import ONE_STEP, SOURCE, MakeWorld, World, delivery, write

MAIL = "ada@example.org"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNING = {"source": SOURCE, "secrets": [SECRET], "trusted_to_verify": True, "regulation": "gdpr"}


@pytest.fixture(params=["pgmq", "rabbitmq"])
def broker(request: pytest.FixtureRequest, migrated_database: str) -> str:
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("rabbitmq_vhost")
        return url
    install_pgmq(make_url(migrated_database).render_as_string(hide_password=False))
    return "pgmq://"


class Bell:
    def ring(self, systems: object) -> None:
        """Nobody has to be told: the test works without being asked."""


@contextmanager
def running(world: World) -> Iterator[None]:
    """Intake, workers and relay at work in the background."""
    stop = threading.Event()
    intake = IntakeConsumer(world.another(), Bell(), stop, lambda: None)

    def work() -> None:
        relay = Relay(world.settings, world.runtime.database)
        while not stop.wait(0.05):
            world.work()
            relay.publish()
        relay.close()

    threads = [threading.Thread(target=intake.run), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_submitted_request_is_signed_carried_out_and_its_answer_shown(
    make_world: MakeWorld, habeas: MakeCommandLine, broker: str
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=broker)
    write(world.folder / "sources.yaml", {"sources": [SIGNING]})
    run = habeas(world, HABEAS_BROKER_URL=broker)
    with running(world):
        told = run.json(
            "submit", "erasure", "--email", "-", "--source", SOURCE, "--verified", "login", "--wait", 60, stdin=MAIL
        )
        assert told["resolution"] == "completed"
        assert told["systems"][0]["steps"][0] == {
            "action": "erase", "outcome": "executed", "counts": {"rows": 1}, "retained": [], "residues": [], "note": "",
        }  # fmt: skip
        assert world.connector("crm").people() == [{MAIL}]
        asked = ("submit", "access", "--user-id", "u-7", "--source", SOURCE, "--verified", "login")
        shown = run(*asked, "--wait", 60).output
        assert "completed_with_exceptions" in shown
        assert "a person is found there by email only" in shown
        assert run("submit", "erasure", "--email", MAIL, "--source", SOURCE).output.strip()


def test_what_is_wrong_with_a_request_is_said_before_anything_is_sent(
    make_world: MakeWorld, habeas: MakeCommandLine
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    run = habeas(world)
    assert "lists no source" in run("submit", "erasure", "--email", MAIL, "--source", "urn:x", code=1).stderr
    assert "say whom it is about" in run("submit", "erasure", "--source", SOURCE, code=2).stderr
    assert "no line was left" in run("submit", "erasure", "--email", "-", "--source", SOURCE, code=2).stderr
    wrong = run("submit", "erasure", "--phone", MAIL, "--source", SOURCE, code=2)
    assert MAIL not in wrong.output + wrong.stderr
    faults = run("submit", "rectification", "--email", MAIL, "--source", SOURCE, code=1).stderr
    assert "a rectification needs corrections" in faults
    run("submit", "oblivion", "--email", MAIL, "--source", SOURCE, code=2)
    assert "the broker" in run("submit", "erasure", "--email", MAIL, "--source", SOURCE, code=4).stderr


def test_a_refused_message_is_looked_at_and_replayed_after_the_fault_is_mended(
    make_world: MakeWorld, habeas: MakeCommandLine, broker: str
) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP], broker_url=broker)
    run = habeas(world, HABEAS_BROKER_URL=broker)
    world.admit(delivery("erasure", MAIL, source="urn:test:new"))
    world.admit(delivery("erasure", "b@example.org", source="urn:x"))
    listed = run.json("quarantine", "list", "--reason", "unknown_source")["messages"]
    assert [m["source"] for m in listed] == ["urn:x", "urn:test:new"]
    mine = listed[1]["id"]
    shown = run("quarantine", "show", mine)
    assert "unknown_source" in shown.output
    assert MAIL not in shown.output
    assert MAIL in run("quarantine", "show", mine, "--body", "--as", "eve").output
    write(world.folder / "sources.yaml", {"sources": [{**SIGNING, "source": "urn:test:new", "unsigned": "allowed"}]})
    with running(world):
        assert run.json("quarantine", "replay", mine, "--as", "eve") == {"replayed": 1}
        eventually(
            lambda: world.rows("SELECT 1 FROM request WHERE resolution = 'completed'"), "the replayed one is done"
        )
        assert run.json("quarantine", "replay", "--all", "--reason", "unknown_source") == {"replayed": 1}
        eventually(lambda: len(run.json("quarantine", "list")["messages"]) == 1, "the other is refused again")
    assert len(run.json("quarantine", "list", "--replayed")["messages"]) == 3
    with world.runtime.database.transaction() as tx:
        noted = [(e.what, e.facts) for e in trail.entries(tx, UUID(mine))]
    assert noted == [("quarantine opened", {"actor": "eve"}), ("replayed", {"actor": "eve"})]
    run("quarantine", "show", "0" * 32, code=1)
    run("quarantine", "replay", "--all", code=2)


# Packages. ----------------------------------------------------------------------------------------------------------


def packaged(make_world: MakeWorld, habeas: MakeCommandLine) -> tuple[World, CommandLine, str]:
    world = make_world(system("crm"))
    request = world.ask("access", MAIL)
    world.work()
    return world, habeas(world), str(request)


def test_a_package_is_unsealed_to_a_file_of_its_owner_alone_and_that_is_recorded(
    make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path
) -> None:
    world, run, request = packaged(make_world, habeas)
    before = world.rows("SELECT closed_at, shred_at FROM request")
    assert run.json("package", request, "--verify")["verified"] is True
    out = tmp_path / "ada.zip"
    run("package", request, "--out", out, "--as", "eve")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with zipfile.ZipFile(out) as archive:
        assert MAIL in archive.read("crm/rows.jsonl").decode()
    assert world.one("SELECT facts->>'actor' FROM audit WHERE what = 'package opened'") == "eve"
    assert world.broken_links() == {}
    assert run.json("audit", "verify", request)["broken"] == 0
    # To have looked at it must not prolong how long it is kept.
    assert world.rows("SELECT closed_at, shred_at FROM request") == before
    assert "is there already" in run("package", request, "--out", out, code=1).stderr
    run("package", request, code=2)


def test_a_package_that_was_tampered_with_is_not_written(
    make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path
) -> None:
    world, run, request = packaged(make_world, habeas)
    world.rows("UPDATE artifact SET inline = set_byte(inline, 40, get_byte(inline, 40) # 1) WHERE system = 'package'")
    run("package", request, "--verify", code=1)
    run("package", request, "--out", tmp_path / "ada.zip", code=1)
    assert not (tmp_path / "ada.zip").exists()


def test_a_request_without_a_package_says_so(make_world: MakeWorld, habeas: MakeCommandLine, tmp_path: Path) -> None:
    world = make_world(system("crm"), workflows=[ONE_STEP])
    request = world.ask("erasure", MAIL)
    assert "has no package" in habeas(world)("package", request, "--out", tmp_path / "x.zip", code=1).stderr
    assert not (tmp_path / "x.zip").exists()
