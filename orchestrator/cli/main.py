"""The command group."""

from __future__ import annotations

import click

from orchestrator.broker import topology
from orchestrator.cli.common import runtime_for
from orchestrator.cli.exits import Group
from orchestrator.cli.lookup import list_, show, why
from orchestrator.cli.operators import approve, cancel, decline, done, pause, resume, retry, skip
from orchestrator.cli.processes import clock, intake, worker
from orchestrator.cli.up import demo, up
from orchestrator.embedded import install_pgmq
from orchestrator.store import migrate as migrations


@click.group(cls=Group)
def cli() -> None:
    """Habeas: data rights, carried out and proven."""


@cli.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    runtime = runtime_for("habeas migrate")
    revision = migrations.upgrade(runtime.database)
    if topology.is_pgmq(runtime.settings):
        install_pgmq(runtime.settings.database_url.get_secret_value())
    runtime.close()
    click.echo(f"the database is at revision {revision}")


for command in (
    up, demo,
    list_, show, why,
    retry, skip, done, approve, decline, cancel, pause, resume,
    intake, worker, clock,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    cli()
