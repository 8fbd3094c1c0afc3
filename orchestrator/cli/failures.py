"""Which errors become exit codes; imported when something failed, for it knows the drivers' errors too."""

from __future__ import annotations

from psycopg import errors as postgres
from sqlalchemy.exc import ProgrammingError

from orchestrator.broker import topology
from orchestrator.cli.exits import Exit, Failed
from orchestrator.errors import ConfigurationError, HabeasError, Unavailable


def failure(error: Exception) -> Failed | None:
    """How an error is shown and what the exit code is; ``None`` for a defect, which keeps its traceback."""
    if isinstance(error, ConfigurationError):
        return Failed(str(error), Exit.CONFIGURATION)
    if isinstance(error, Unavailable):
        return Failed(str(error), Exit.UNAVAILABLE)
    if isinstance(error, HabeasError):
        return Failed(str(error))
    cause = error.orig if isinstance(error, ProgrammingError) else error
    if isinstance(cause, postgres.UndefinedTable | postgres.UndefinedColumn):
        return Failed("the database does not have this version's schema; run: habeas migrate", Exit.CONFIGURATION)
    if isinstance(error, topology.AWAY):
        return Failed(f"the broker does not answer ({type(error).__name__})", Exit.UNAVAILABLE)
    return None
