"""``habeas check``: everything that is configured, looked at before it runs; all faults at once."""

from __future__ import annotations

import os

import click
from pydantic import SecretStr

from orchestrator import settings as reader
from orchestrator.broker import topology
from orchestrator.cli import output
from orchestrator.cli.common import json_option
from orchestrator.cli.exits import Exit
from orchestrator.core.planner import DESK, PACKAGER
from orchestrator.definitions.loader import Definitions, examine, examine_sources
from orchestrator.errors import ConfigurationError, Fault, Unavailable
from orchestrator.messages.signing import Secret
from orchestrator.runtime import Runtime
from orchestrator.settings import PREFIX, Settings
from orchestrator.store import migrate

_FILES = ("CONFIG", "SYSTEMS", "SOURCES", "WORKFLOWS")


@click.command()
@click.option("--online", is_flag=True, help="Ask the database and the broker too.")
@json_option
def check(online: bool, as_json: bool) -> None:
    """Check settings, workflows, systems, sources: all faults at once, by file and line; exit code 3 if any."""
    settings, faults = _settings()
    definitions: Definitions | None = None
    away: list[Fault] = []
    if settings is not None:
        runtime = Runtime(settings, "habeas check")
        definitions, more = _definitions(runtime)
        faults += more
        if online:
            away = _online(runtime, faults)
        runtime.close()
    _tell(definitions, faults, away, as_json)
    if faults:
        raise SystemExit(int(Exit.CONFIGURATION))
    if away:
        raise SystemExit(int(Exit.UNAVAILABLE))


def _settings() -> tuple[Settings | None, list[Fault]]:
    """The settings; when they have faults, as much of them as it takes to look at the definition files all the same."""
    try:
        return reader.read(), []
    except ConfigurationError as error:
        faults = list(error.faults)
    files = {PREFIX + name: os.environ[PREFIX + name] for name in _FILES if PREFIX + name in os.environ}
    try:
        return reader.read(files), faults
    except ConfigurationError:
        return None, faults


def _definitions(runtime: Runtime) -> tuple[Definitions | None, list[Fault]]:
    settings = runtime.settings
    # The engine's own systems want a database to talk to; looking at definitions they talk to none.
    unconnected = Runtime(settings.model_copy(update={"database_url": SecretStr("postgresql://unused/")}))
    values = settings.lookup()
    definitions, faults = examine(settings.workflows, settings.systems, values, builtin=unconnected.builtin)
    faults += examine_sources(settings.sources, values)[1]
    if definitions is not None and definitions.clocks and settings.default_regulation not in definitions.clocks:
        known = ", ".join(sorted(definitions.clocks))
        hint = f"names no regulation that is defined; there are: {known}"
        faults.append(Fault(hint, field="HABEAS_DEFAULT_REGULATION"))
    faults += _keys(runtime)
    return definitions, faults


def _keys(runtime: Runtime) -> list[Fault]:
    faults: list[Fault] = []
    try:
        runtime.masters  # noqa: B018 - reading it is the check
    except ConfigurationError as error:
        faults += [Fault(f.text, field="HABEAS_MASTER_KEY") for f in error.faults]
    secret = runtime.settings.event_secret.get_secret_value()
    try:
        if secret:
            Secret(secret)
    except ConfigurationError as error:
        faults += [Fault(f.text, field="HABEAS_EVENT_SECRET") for f in error.faults]
    try:
        runtime.database  # noqa: B018 - the same; it does not connect
        topology.broker_url(runtime.settings)
    except ConfigurationError as error:
        faults += error.faults
    return faults


def _online(runtime: Runtime, faults: list[Fault]) -> list[Fault]:
    """What does not answer. A schema of another version goes to ``faults``: waiting does not help against it."""
    away: list[Fault] = []
    try:
        with runtime.database.transaction() as tx:
            at, wanted = migrate.current(tx), migrate.head()
        if at != wanted:
            faults.append(
                Fault("does not have this version's schema; run: habeas migrate", field="HABEAS_DATABASE_URL")
            )
    except Unavailable as error:
        away.append(Fault(str(error), field="HABEAS_DATABASE_URL"))
    except ConfigurationError:
        return away  # told already
    try:
        with topology.connect(runtime.settings, "check") as connection:
            connection.connect()
    except topology.AWAY as error:
        field = "HABEAS_DATABASE_URL" if topology.is_pgmq(runtime.settings) else "HABEAS_BROKER_URL"
        away.append(Fault(f"the broker does not answer ({type(error).__name__})", field=field))
    except ConfigurationError:
        pass  # told already
    return away


def _tell(definitions: Definitions | None, faults: list[Fault], away: list[Fault], as_json: bool) -> None:
    unique = list(dict.fromkeys([*faults, *away]))
    systems = sorted((definitions.systems.keys() if definitions else set()) - {DESK, PACKAGER})
    workflows = sorted(str(r) for r in (definitions.workflows if definitions else ()))
    if as_json:
        found = [{"file": f.file, "line": f.line, "field": f.field, "text": f.text} for f in unique]
        output.emit({"faults": found, "systems": systems, "workflows": workflows})
        return
    for fault in unique:
        click.echo(str(fault), err=True)
    if unique:
        click.echo(f"{len(unique)} fault{'s' * (len(unique) > 1)}", err=True)
    elif definitions is not None:
        click.echo(f"all is well: {len(workflows)} workflows, {len(systems)} systems ({', '.join(systems)})")
