"""``habeas hold``: legal holds. While one is in force nothing of the person is erased or changed."""

from __future__ import annotations

from typing import Any

import click

from orchestrator.cli import output
from orchestrator.cli.common import actor_option, identities, identity_options, json_option
from orchestrator.cli.engine import acted, opened
from orchestrator.cli.exits import Group
from orchestrator.core.commands import Record
from orchestrator.errors import NotFound
from orchestrator.store import queries, trail

_case = click.option("--case", required=True, help="The name of the case; shown by habeas why. No personal data.")


@click.group(cls=Group)
def hold() -> None:
    """Place and release legal holds."""


@hold.command()
@_case
@identity_options
@actor_option
@json_option
def place(case: str, others: tuple[str, ...], hashed: tuple[str, ...], actor: str, as_json: bool, **said: Any) -> None:
    """Put a person under hold, by every identity that is given; only keyed hashes of them are kept."""
    people = identities(said, others, hashed)
    if not people:
        raise click.UsageError("say who is under hold, e.g. --email -")
    with opened() as runtime, runtime.database.transaction() as tx:
        ids = runtime.holds.place(tx, people, case, actor)
        trail.note_thing(
            tx, trail.thing("hold", case), Record("hold placed", None, {"actor": actor, "holds": len(ids)})
        )
    acted("hold placed", actor, case=case, holds=len(ids))
    if as_json:
        output.emit({"case": case, "holds": ids})
    else:
        click.echo(f"{len(ids)} placed for case {case}")


@hold.command()
@_case
@actor_option
@json_option
def release(case: str, actor: str, as_json: bool) -> None:
    """End all holds of a case; what waited for that goes on."""
    with opened() as runtime:
        with runtime.database.transaction() as tx:
            n = runtime.holds.release(tx, case)
            trail.note_thing(tx, trail.thing("hold", case), Record("hold released", None, {"actor": actor, "holds": n}))
        acted("hold released", actor, case=case, holds=n)
    if as_json:
        output.emit({"case": case, "released": n})
    else:
        click.echo(f"{n} released for case {case}; what waited goes on when the clock turns next")


@hold.command(name="list")
@click.option("--released", is_flag=True, help="Those too that were released.")
@click.option("--case", help="Only this case.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@json_option
def list_(released: bool, case: str | None, limit: int, as_json: bool) -> None:
    """List holds by case. Whom they are about can't be read from them."""
    with opened() as runtime, runtime.database.transaction() as tx:
        found = queries.holds(tx, released=released, case=case, limit=limit)
    if case is not None and not found:
        raise NotFound(f"no hold is {'known' if released else 'in force'} for case {case!r}")
    if as_json:
        output.emit({"holds": found})
        return
    rows = [(h.case, h.identities, h.actor, h.placed_at, h.released_at) for h in found]
    console = output.console()
    columns = ("case", "identities", "placed by", "placed", "released")
    console.print(output.table(columns, rows) if rows else "no hold is in force")
