"""``habeas quarantine``: refused messages. An operator may come to see personal data here, and leaves a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

import click
from kombu import Producer

from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.common import actor_option, json_option
from orchestrator.cli.engine import acted, opened
from orchestrator.cli.exits import Group
from orchestrator.core.commands import Record
from orchestrator.errors import NotFound, Refusal
from orchestrator.messages import names
from orchestrator.messages.envelope import Delivery
from orchestrator.runtime import Runtime
from orchestrator.store import queries, runs, trail


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
    output.tell({"replayed": count}, as_json)


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
