"""Commands that are imported when they are used: looking something up need not load what workers are made of."""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from orchestrator.cli.exits import Group


class Lazy(click.Command):
    """The name of a command, and what the list of commands says of it, until somebody uses it."""

    def __init__(self, name: str, where: str, summary: str) -> None:
        """``where``: ``module:attribute`` in this package; ``summary``: the first sentence of its help."""
        super().__init__(name, help=summary)
        self._where = where

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self._where.partition(":")
        return cast("click.Command", getattr(import_module(f"orchestrator.cli.{module}"), attribute))


class LazyGroup(Group):
    """A group of lazy commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What is to be run, completed or explained is loaded."""
        command = super().get_command(ctx, cmd_name)
        return command.load() if isinstance(command, Lazy) else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands needs none of them."""
        Group(commands=self.commands).format_commands(ctx, formatter)
