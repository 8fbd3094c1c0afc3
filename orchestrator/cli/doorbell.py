"""Doorbells after an operator's act."""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestrator.broker import topology
from orchestrator.broker.bell import BrokerBell
from orchestrator.runtime import Runtime
from orchestrator.settings import Settings


def answers(settings: Settings) -> bool:
    """Whether the broker does."""
    try:
        with topology.connect(settings, "cli") as connection:
            connection.connect()
    except topology.AWAY:
        return False
    return True


def ring(runtime: Runtime, rings: Mapping[str, int]) -> bool:
    """Ring for what became ready. Without a broker that is the clock's to do; says whether it was done."""
    systems = {name: n for name, n in rings.items() if n}
    if not systems:
        return True
    if not answers(runtime.settings):
        click.echo("the broker does not answer; the clock rings for the work when it is back", err=True)
        return False
    bell = BrokerBell(runtime.settings)
    bell.ring(systems)
    bell.close()
    return True
