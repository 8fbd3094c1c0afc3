"""``habeas submit``: publish a request as a source does, and wait for the answer if asked to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Group, RenderableType

from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.common import identities, identity_options, json_option, pair, typed
from orchestrator.cli.engine import opened
from orchestrator.cli.exits import Exit, Failed
from orchestrator.core.vocabulary import IdentityType, Resolution, Right
from orchestrator.errors import NotFound, RefusedMessage
from orchestrator.messages.answers import Answer
from orchestrator.publish import Publisher
from orchestrator.runtime import Runtime


@click.command()
@click.argument("right", type=click.Choice([r.value for r in Right]))
@identity_options
@click.option("--source", required=True, metavar="URI", help="The source that asks; one of the sources file.")
@click.option("--regulation", help="e.g. gdpr; default: the source's.")
@click.option("--correct", multiple=True, metavar="CATEGORY=VALUE", help="Rectification: the right value; - reads it.")
@click.option("--purpose", "purposes", multiple=True, help="Objection, restriction: a purpose; default: all.")
@click.option("--system", "systems", multiple=True, help="Only this system; may be repeated.")
@click.option("--category", "categories", multiple=True, help="Only this category of data; may be repeated.")
@click.option("--verified", metavar="METHOD", help="How the person was verified just now, e.g. login.")
@click.option("--id", "message_id", help="Message id; the same id again is carried out once. Default: a new one.")
@click.option("--wait", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Wait for the final answer.")
@json_option
def submit(
    right: str,
    others: tuple[str, ...],
    hashed: tuple[str, ...],
    source: str,
    wait: float | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Ask for a right on behalf of a source: a signed message through the broker.

    VALUE may be - : then it is read from standard input, a line each, in the order in which this help lists the
    options, so that personal data need not be in the shell's history.
    """
    people = identities(said, others, hashed)
    options = _options(said)
    if not people:
        kinds = ", ".join(f"--{k.value.replace('_', '-')}" for k in IdentityType)
        raise click.UsageError(f"say whom it is about: {kinds} or --identity")
    with opened() as runtime, _publisher(runtime, source) as publisher:
        try:
            message_id = publisher.request(right, identities=people, **options)
        except RefusedMessage as refused:
            raise Failed("\n".join(["the request is not valid:", *(f"  {f}" for f in refused.faults)])) from None
        if wait is None:
            output.emit({"message_id": message_id}) if as_json else click.echo(message_id)
            return
        if not as_json:
            click.echo(f"message {message_id}", err=True)
        _show(_answer(publisher, message_id, wait), as_json)


def _options(said: dict[str, Any]) -> Any:
    """What the publisher takes beside the identities."""
    corrections = dict(pair("--correct", text) for text in said["correct"])
    options: dict[str, Any] = {
        "regulation": said["regulation"],
        "corrections": {name: typed(name, value) for name, value in corrections.items()},
        "purposes": said["purposes"],
        "systems": said["systems"],
        "categories": said["categories"],
        "message_id": said["message_id"],
    }
    if said["verified"]:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        options["verification"] = {"method": said["verified"], "verified_at": now}
    return {name: value for name, value in options.items() if value}


def _publisher(runtime: Runtime, uri: str) -> Publisher:
    """A publisher in the name of a source, with the secret that the sources file gives it."""
    settings = runtime.settings
    source = runtime.sources.get(uri)
    if source is None:
        raise NotFound(f"the sources file {settings.sources} lists no source {uri!r}")
    secrets = [s.get_secret_value() for s in source.secrets]
    signing = [s for s in secrets if not s.startswith("whpk_")]
    if secrets and not signing:
        raise Failed(f"only the public key of {uri} is known here: it alone can sign, so submit from there")
    return Publisher(
        topology.broker_url(settings),
        source=uri,
        secret=signing[0] if signing else "",
        transport_options=topology.transport_options(settings, "submit"),
    )


def _answer(publisher: Publisher, message_id: str, seconds: float) -> Answer:
    try:
        return publisher.wait(message_id, timeout=seconds)
    except TimeoutError:
        hint = f"habeas why --message {message_id}"
        raise Failed(f"no final answer within {seconds:g} s; the request goes on: {hint}") from None


def _show(answer: Answer, as_json: bool) -> None:
    if as_json:
        output.emit(
            {"message_id": answer.message_id, "event": f"{answer.kind}", "dataref": answer.dataref, **answer.data}
        )
    else:
        output.console().print(_completed(answer) if answer.resolution else _refused(answer))
    if answer.resolution is None:
        raise SystemExit(int(Exit.REFUSED))


def _refused(answer: Answer) -> RenderableType:
    rows = [(fault.get("field", ""), fault.get("hint", "")) for fault in answer.data.get("faults", [])]
    return output.table(("field", "what to do"), rows, f"refused: {answer.data.get('reason', '')}")


def _completed(answer: Answer) -> RenderableType:
    data = answer.data
    head = output.facts(
        [
            ("request", answer.request_id),
            ("result", f"{Resolution(data['resolution'])}" + (f": {data['reason']}" if data.get("reason") else "")),
            ("closed", data["closed_at"]),
            ("package", f"{answer.dataref}; habeas package {answer.request_id} --out FILE" if answer.dataref else ""),
        ]
    )
    rows = [
        (
            system["system"],
            step["action"],
            step["outcome"],
            output.counts(step["counts"]),
            "; ".join(
                f"{r['records']} {r['what']} until {r['until']}: {r['reason']} ({r['legal_basis']})"
                for r in step["retained"]
            ),
            step["note"],
        )
        for system in data["systems"]
        for step in system["steps"]
    ]
    return Group(head, output.table(("system", "action", "outcome", "records", "kept, and why", "note"), rows))
