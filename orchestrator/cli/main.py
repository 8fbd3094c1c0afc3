"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import click

from orchestrator.broker import topology
from orchestrator.cli.common import runtime_for
from orchestrator.cli.processes import clock, intake, worker
from orchestrator.embedded import install_pgmq
from orchestrator.store import migrate as migrations


@click.group()
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


for command in (intake, worker, clock):
    cli.add_command(command)


def main() -> None:
    """Entry point."""
    cli()
