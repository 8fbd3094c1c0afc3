"""``habeas migrate`` and ``habeas version``: the schema."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.common import json_option
from orchestrator.cli.connect import connected
from orchestrator.embedded import install_pgmq
from orchestrator.store import migrate as migrations


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the database to this version's schema."""
    with connected("habeas migrate") as (settings, database):
        revision = migrations.upgrade(database)
        if topology.is_pgmq(settings):
            install_pgmq(settings.database_url.get_secret_value())
    if as_json:
        output.emit({"revision": revision})
    else:
        click.echo(f"the database is at revision {revision}")


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version, and the schema it needs."""
    facts = {"habeas": metadata.version("habeas"), "schema": migrations.head(), "python": platform.python_version()}
    if as_json:
        output.emit(facts)
    else:
        click.echo(f"habeas {facts['habeas']} (schema {facts['schema']}, Python {facts['python']})")
