"""``habeas recover``, after the database was restored from a backup; ``habeas ledger export``, for before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click

from orchestrator.cli import output
from orchestrator.cli.common import actor_option, json_option
from orchestrator.cli.engine import acted, opened
from orchestrator.cli.exits import Group
from orchestrator.stages import recover as stage
from orchestrator.stages.recover import Compared, Entry, Findings, Recover

SHOWN = 100
"""Forgotten erasures that are listed in the table; ``--json`` has all."""


class _Moment(click.ParamType[datetime]):
    """A time in RFC 3339; without an offset it is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Raises ``BadParameter``."""
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("write it as 2026-11-22T14:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


MOMENT = _Moment()


@dataclass(frozen=True, slots=True)
class _LedgerFile:
    """An exported ledger, read anew each time it is gone through."""

    path: Path
    since: datetime | None

    def __iter__(self) -> Iterator[Entry]:
        with self.path.open(encoding="utf-8") as lines:
            for entry in stage.read(lines):
                if self.since is None or entry.at >= self.since:
                    yield entry


@click.command()
@click.option("--since", type=MOMENT, metavar="TIME", help="When the backup was taken.  [default: its newest entry]")
@click.option(
    "--ledger",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The ledger as habeas ledger export wrote it off-site; with --since, only its entries from then on.",
)
@click.option("--dry-run", is_flag=True, help="Tell, and change nothing; processes may run meanwhile.")
@actor_option
@json_option
def recover(since: datetime | None, ledger: Path | None, dry_run: bool, actor: str, as_json: bool) -> None:
    """Put a database that was restored from a backup to work again.

    Tells which changes may be made a second time, which events go out again, and which erasures the backup does not
    know; takes all leases back. Stop intake, workers and clocks first.
    """
    with opened("habeas recover") as runtime:
        stage_ = Recover(runtime.database, runtime.advance)
        findings = stage_.look()
        ends = since or findings.backup_ends or datetime.now(UTC)
        file = _LedgerFile(ledger, since) if ledger else None
        compared = stage_.compare(file) if file else None
        if not dry_run:
            stage_.recover(actor, ends)
            if file:
                stage_.remember(file)
            acted("recovered", actor, leases=findings.leases, requests=findings.open_requests)
    if as_json:
        output.emit({"dry_run": dry_run, "backup": ends, "found": findings, "ledger": compared})
    else:
        _tell(findings, ends, compared, dry_run)


def _tell(findings: Findings, ends: datetime, compared: Compared | None, dry_run: bool) -> None:
    console = output.console()
    states = ("running", "ready", "parked", "attention", "waiting")
    if findings.maybe_done:
        rows = [(m.system, m.action, *(getattr(m, s) for s in states)) for m in findings.maybe_done]
        title = "Not done in the backup; may have been done since, and is done again"
        console.print(output.table(("system", "action", *states), rows, title))
    console.print(output.facts(_facts(findings, ends, compared)))
    if compared is not None and compared.forgotten:
        rows_ = [(f.source, f.message_id, f.request, f.at) for f in compared.forgotten[:SHOWN]]
        title = "Erased, and unknown to the backup: have the sources send these again, under the same ids"
        console.print(output.table(("source", "message", "request", "erased"), rows_, title))
    console.print(
        "Not in the backup, and for you to do before the workers start: holds and pauses placed since. "
        "Requests that arrived since are unknown until their sources send them again."
    )
    console.print("nothing was changed" if dry_run else "recovered: start the processes")


def _facts(findings: Findings, ends: datetime, compared: Compared | None) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("the backup is of", ends),
        ("open requests", f"{findings.open_requests}; each that was answered since is answered anew"),
        ("steps in a worker's hands", f"{findings.leases}; taken back"),
        ("steps awaiting an answer", f"{findings.answers_lost}; what was answered since is asked again"),
        ("events to publish", f"{findings.events_again}; again, under the same ids, if they went out since"),
        ("past their keeping", f"{findings.shredded_again}; shredded again by the clock"),
        ("legal holds in force", findings.holds),
        ("paused systems", ", ".join(findings.paused) or "none"),
    ]
    if compared is not None:
        facts += [
            ("ledger entries compared", compared.entries),
            ("of these lost", f"{compared.missing}; written again"),
            ("erased, and open again", f"{len(compared.open_again)}; erased again"),
            ("erased, and unknown", len(compared.forgotten)),
        ]
    return facts


@click.group(cls=Group)
def ledger() -> None:
    """The ledger of erased people: keyed hashes, no identities."""


@ledger.command(name="export")
@click.option("--out", type=click.File("a", lazy=False, encoding="utf-8"), required=True, metavar="FILE",
              help="Appended to; - is standard output.")  # fmt: skip
@click.option("--since", type=MOMENT, metavar="TIME", help="Only entries from this time on.")
@json_option
def export(out: TextIO, since: datetime | None, as_json: bool) -> None:
    """Write the ledger as lines of JSON, to be kept away from the database and its backups."""
    n = 0
    with opened() as runtime, runtime.database.transaction() as tx:
        for line in stage.export(tx, since):
            out.write(line + "\n")
            n += 1
    out.flush()
    if as_json:
        output.emit({"entries": n})
    else:
        click.echo(f"{n} entries written", err=True)
