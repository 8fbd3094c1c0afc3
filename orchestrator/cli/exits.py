"""Exit codes, and the one place where errors become them: one clear line, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import IO, Any

import click


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
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        raise SystemExit(int(Exit.OK)) from None  # whoever read our output has read enough
    except Exception as error:
        from orchestrator.cli.failures import failure  # noqa: PLC0415 - it costs more than most commands that go well

        failed = failure(error)
        if failed is None:
            raise
        raise failed from None
