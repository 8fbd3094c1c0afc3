"""The command group."""

from __future__ import annotations

import click

from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.audit import audit
from orchestrator.cli.check import check
from orchestrator.cli.common import json_option, opened
from orchestrator.cli.disclose import package, quarantine
from orchestrator.cli.exits import Group
from orchestrator.cli.holds import hold
from orchestrator.cli.keys import new_key, version
from orchestrator.cli.lookup import list_, show, why
from orchestrator.cli.operators import approve, cancel, decline, done, pause, resume, retry, skip
from orchestrator.cli.processes import clock, intake, worker
from orchestrator.cli.recover import ledger, recover
from orchestrator.cli.submit import submit
from orchestrator.cli.up import demo, up
from orchestrator.cli.watch import watch
from orchestrator.embedded import install_pgmq
from orchestrator.store import migrate as migrations


@click.group(cls=Group)
def cli() -> None:
    """Habeas: data rights, carried out and proven."""


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the database to this version's schema."""
    with opened("habeas migrate") as runtime:
        revision = migrations.upgrade(runtime.database)
        if topology.is_pgmq(runtime.settings):
            install_pgmq(runtime.settings.database_url.get_secret_value())
    if as_json:
        output.emit({"revision": revision})
    else:
        click.echo(f"the database is at revision {revision}")


# In the order of a newcomer's day: see it work, ask, look, act, set up, run.
for command in (
    demo, up,
    submit, list_, show, why, watch, package,
    approve, decline, retry, skip, done, cancel, pause, resume, hold, quarantine, audit, ledger, recover,
    check, new_key, migrate, version,
    intake, worker, clock,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    cli()
