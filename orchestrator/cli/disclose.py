"""``habeas package`` and ``habeas quarantine``: where an operator comes to see personal data, and leaves a trace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import click
from kombu import Producer

from orchestrator.artifacts.package import open_package, verify_package
from orchestrator.artifacts.stream import chunks
from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.common import acted, actor_option, json_option, opened, request_argument
from orchestrator.cli.exits import Failed, Group
from orchestrator.core.commands import Record
from orchestrator.errors import NotFound, Refusal
from orchestrator.messages import names
from orchestrator.messages.envelope import Delivery
from orchestrator.runtime import Runtime
from orchestrator.stages.package import aad, find_package, to_stored
from orchestrator.store import queries, runs, trail

# Packages. ----------------------------------------------------------------------------------------------------------


@click.command()
@request_argument
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the ZIP; mode 0600.")
@click.option("--verify", is_flag=True, help="Only read it through, and compare it with what was recorded.")
@actor_option
@json_option
def package(request: str, message: bool, out: Path | None, verify: bool, actor: str, as_json: bool) -> None:
    """Unseal the package of an access or portability request, for handing it over; recorded in the audit trail."""
    if verify == (out is not None):
        raise click.UsageError("say either where to write it (--out FILE) or --verify")
    with opened() as runtime:
        with runtime.database.transaction() as tx:
            id_ = queries.find_message(tx, request) if message else queries.find(tx, request)
            row = find_package(tx, id_)
            key = runtime.secrets.key(tx, id_)
            recorded = _recorded_digest(queries.detail(tx, id_))
        stored, folder = to_stored(row), runtime.settings.artifacts
        if out is None:
            size, digest = verify_package(stored, key, aad(row), folder)
            if recorded and digest != recorded:
                raise Failed("the package is not the one that was made: its digest differs from the recorded one")
            _told({"request": id_, "verified": True, "bytes": size, "sha256": digest}, as_json)
            return
        with _new_file(out) as target:
            # Recorded and committed before the first byte is in the clear.
            with runtime.database.transaction() as tx:
                trail.note(tx, id_, Record("package opened", row.ordinal, {"actor": actor}))
            with open_package(stored, key, aad(row), folder) as unsealed:
                size = sum(target.write(piece) for piece in chunks(unsealed))
        acted("package opened", actor, request=str(id_))
        _told({"request": id_, "written": str(out), "bytes": size}, as_json)


def _recorded_digest(detail: queries.Detail) -> str:
    digests = [s.result.evidence.get("sha256", "") for s in detail.run.steps if s.system == "package" and s.result]
    return str(digests[-1]) if digests else ""


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that did not exist, for its owner alone; gone again when writing it fails."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failed(f"{path} is there already; choose another name") from None
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _told(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit(facts)
    else:
        output.console().print(output.facts(facts.items()))


# Quarantine. --------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def quarantine() -> None:
    """Look at refused messages, and send them to intake again."""


@quarantine.command(name="list")
@click.option("--reason", type=click.Choice([r.value for r in Refusal]), help="Only those refused for this.")
@click.option("--replayed", is_flag=True, help="Those too that were replayed already.")
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Go on behind this message.")
@json_option
def list_(reason: str | None, replayed: bool, limit: int, after: str | None, as_json: bool) -> None:
    """List refused messages, newest first."""
    with opened() as runtime, runtime.database.transaction() as tx:
        last = _id(after) if after else None
        found = queries.quarantined(tx, reason=reason, replayed=replayed, limit=limit, after=last)
    if as_json:
        output.emit({"messages": found, "after": found[-1].id if len(found) == limit else None})
        return
    rows = [(m.id, m.at, m.source, m.reason, m.field, m.bytes, m.replayed_at) for m in found]
    columns = ("message", "at", "source (as claimed)", "reason", "field", "bytes", "replayed")
    console = output.console()
    console.print(output.table(columns, rows) if rows else "no message is in quarantine")
    if len(found) == limit:
        console.print(f"[dim]more: --after {found[-1].id}[/dim]")


@quarantine.command()
@click.argument("id_", metavar="ID")
@click.option("--body", is_flag=True, help="The message itself, unsealed: personal data; recorded in the audit trail.")
@actor_option
@json_option
def show(id_: str, body: bool, actor: str, as_json: bool) -> None:
    """Show why a message was refused; with --body, the message."""
    with opened() as runtime:
        key = _id(id_)
        with runtime.database.transaction() as tx:
            found = queries.quarantined_one(tx, key)
            delivery = runtime.quarantine.open(tx, key)
        facts = {
            "message": key,
            "at": found.at,
            "source": found.source,
            "reason": found.reason,
            "field": found.field,
            "detail": found.detail,
            "bytes": found.bytes,
            "content_type": delivery.content_type,
            "headers": sorted(str(name) for name in delivery.headers),
            "replayed_at": found.replayed_at,
        }
        if body:
            with runtime.database.transaction() as tx:
                trail.note_thing(tx, key, Record("quarantine opened", None, {"actor": actor}))
            acted("quarantine opened", actor, message_id=str(key))
            facts["body"] = delivery.body.decode("utf-8", "replace")
    if as_json:
        output.emit(facts)
        return
    text = facts.pop("body", None)
    shown = {**facts, "headers": ", ".join(sorted(str(name) for name in delivery.headers))}
    output.console().print(output.facts(shown.items()))
    if text is not None:
        click.echo(text)


@quarantine.command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--all", "all_", is_flag=True, help="All that were refused for --reason.")
@click.option("--reason", type=click.Choice([r.value for r in Refusal]), help="With --all: which.")
@actor_option
@json_option
def replay(id_: str | None, all_: bool, reason: str | None, actor: str, as_json: bool) -> None:
    """Send a message to intake again, as it came: after the sources or systems file was put right."""
    if (id_ is None) == (not all_) or (all_ and reason is None):
        raise click.UsageError("name one message, or say --all --reason REASON")
    with opened() as runtime, _to_intake(runtime) as producer:
        count = 0
        for key in [_id(id_)] if id_ else _all_of(runtime, str(reason)):
            with runtime.database.transaction() as tx:
                delivery = runtime.quarantine.open(tx, key)
                trail.note_thing(tx, key, Record("replayed", None, {"actor": actor}))
                _publish(producer, delivery, key)
                runtime.quarantine.mark_replayed(tx, key, runs.now(tx))
            count += 1
        acted("replayed", actor, messages=count)
    _told({"replayed": count}, as_json)


def _all_of(runtime: Runtime, reason: str) -> Iterator[UUID]:
    """The messages refused for a reason up to now, newest first; those that come back refused are not among them."""
    after: UUID | None = None
    while True:
        with runtime.database.transaction() as tx:
            found = queries.quarantined(tx, reason=reason, limit=200, after=after)
        for message in found:
            yield message.id
        if not found:
            return
        after = found[-1].id


@contextlib.contextmanager
def _to_intake(runtime: Runtime) -> Iterator[Producer]:
    with topology.connect(runtime.settings, "replay") as connection:
        connection.connect()
        topology.declare(connection, ())
        with connection.channel() as channel:
            yield Producer(channel, exchange=topology.requests_exchange(channel), auto_declare=False)


def _publish(producer: Producer, delivery: Delivery, key: UUID) -> None:
    """As it came: same body, same headers, so that its signature still holds."""
    producer.publish(
        delivery.body,
        exchange=names.REQUESTS_EXCHANGE,
        routing_key=names.UNKNOWN_RIGHT,
        headers=dict(delivery.headers),
        content_type=delivery.content_type or "application/octet-stream",
        content_encoding="binary",
        delivery_mode=2,
        message_id=str(key),
        **({"reply_to": delivery.reply_to} if delivery.reply_to else {}),
        **({"correlation_id": delivery.correlation_id} if delivery.correlation_id else {}),
    )


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("this is not the id of a quarantined message") from None
