"""The engine, for commands that act."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from orchestrator import logs, settings
from orchestrator.cli.connect import find
from orchestrator.runtime import Runtime

_log = logs.get("cli")


def runtime_for(name: str) -> Runtime:
    """A runtime from the environment. Raises ``ConfigurationError``."""
    return Runtime(settings.read(), name)


@contextlib.contextmanager
def opened(name: str = "habeas cli") -> Iterator[Runtime]:
    """A runtime for the length of one command; what is logged meanwhile goes to standard error, from warnings up."""
    logs.configure("console", "WARNING")
    runtime = runtime_for(name)
    try:
        yield runtime
    finally:
        runtime.close()


def found(runtime: Runtime, request: str, *, message: bool = False) -> UUID:
    """The request that is meant. Raises ``NotFound`` or ``Conflict``."""
    with runtime.database.transaction() as tx:
        return find(tx, request, message=message)


def acted(what: str, actor: str, **facts: Any) -> None:
    """Log what an operator did."""
    _log.info("operator.acted", act=what, actor=actor, **facts)
