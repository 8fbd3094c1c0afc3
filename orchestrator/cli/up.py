"""``habeas up`` and ``habeas demo``: everything on one machine, nothing to install beside it."""

from __future__ import annotations

import importlib
import signal
import threading
from pathlib import Path

import click

from orchestrator import settings
from orchestrator.cli.supervisor import Home, deployment


@click.command()
@click.option("--systems", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The systems file.")
@click.option("--sources", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The sources file.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="Default: HABEAS_HOME, or .habeas.")
def up(systems: Path | None, sources: Path | None, home: Path | None) -> None:
    """Run a whole deployment here: embedded PostgreSQL (database and broker), intake, worker and clock."""
    known = settings.read(None, **({"home": home} if home else {}))
    values = {
        "systems": str((systems or known.systems).absolute()),
        "sources": str((sources or known.sources).absolute()),
    }
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    place = Home(known.home)
    with deployment(place, values) as (_runtime, supervisor):
        click.echo(f"running in {place.path} (logs in {place.logs}); Ctrl-C ends it")
        while not stop.wait(1):
            supervisor.tend()
    click.echo("stopped")


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running afterwards, to play with, until Ctrl-C.")
@click.option("--people", type=click.IntRange(60), default=3000, show_default=True, help="People in the shop.")
@click.option("--requests", type=click.IntRange(12), default=None, help="How many of them ask; default: a tenth.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=Path(".habeas"), show_default=True)
def demo(keep: bool, people: int, requests: int | None, home: Path) -> None:
    """Run the demo shop: four real systems, hundreds of requests, and a check in the systems themselves."""
    try:
        shop = importlib.import_module("examples.shop.demo")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "examples":
            raise
        raise click.ClickException("the demo shop is part of the source tree: run this in a checkout of it") from error
    raise SystemExit(shop.run(Home(home), people=people, requests=requests, keep=keep))
