"""Exit codes, and the one place where errors become them: one clear line, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import IO, Any

import click
from psycopg import errors as postgres
from sqlalchemy.exc import ProgrammingError

from orchestrator.broker import topology
from orchestrator.errors import ConfigurationError, HabeasError, Unavailable


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    """Done."""
    REFUSED = 1
    """Not found, not allowed in this state, refused, or not answered in time."""
    USAGE = 2
    """The command line is wrong."""
    CONFIGURATION = 3
    """Settings or definition files have faults; all are printed."""
    UNAVAILABLE = 4
    """The database or the broker does not answer; try again."""


class Failed(click.ClickException):
    """An error on its way out of the program."""

    def __init__(self, message: str, code: Exit = Exit.REFUSED) -> None:
        """``message``: what is printed, to standard error."""
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc] # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        click.echo(f"habeas: {self.message}", err=file is None, file=file)


def failure(error: Exception) -> Failed | None:
    """How an error is shown and what the exit code is; ``None`` for a defect, which keeps its traceback."""
    if isinstance(error, ConfigurationError):
        return Failed(str(error), Exit.CONFIGURATION)
    if isinstance(error, Unavailable):
        return Failed(str(error), Exit.UNAVAILABLE)
    if isinstance(error, HabeasError):
        return Failed(str(error))
    if isinstance(error, ProgrammingError) and isinstance(
        error.orig, postgres.UndefinedTable | postgres.UndefinedColumn
    ):
        return Failed("the database does not have this version's schema; run: habeas migrate", Exit.CONFIGURATION)
    if isinstance(error, topology.AWAY):
        return Failed(f"the broker does not answer ({type(error).__name__})", Exit.UNAVAILABLE)
    return None


class Group(click.Group):
    """A command group that turns errors into exit codes, and lists its commands as they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In order of addition: the order of a newcomer's day."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        return guarded(lambda: super(Group, self).invoke(ctx))


def guarded(act: Callable[[], Any]) -> Any:
    """Do something; an error of ours leaves as a ``Failed``."""
    try:
        return act()
    except click.ClickException:
        raise
    except BrokenPipeError:
        raise SystemExit(int(Exit.OK)) from None  # whoever read our output has read enough
    except Exception as error:
        failed = failure(error)
        if failed is None:
            raise
        raise failed from None
