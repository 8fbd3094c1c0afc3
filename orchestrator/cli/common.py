"""What the commands share: common options, identities to type."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.core.model import Identity
from orchestrator.core.vocabulary import IdentityType
from orchestrator.messages.identities import normalise

_Command = TypeVar("_Command", bound=Callable[..., Any])


# Options. -----------------------------------------------------------------------------------------------------------


def json_option(command: _Command) -> _Command:
    """``--json``: for programs instead of people."""
    return click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")(command)


def actor_option(command: _Command) -> _Command:
    """``--as``: who does it, for the audit trail."""
    return click.option(
        "--as", "actor", default=_me, show_default="you", help="Who does this; recorded in the audit trail."
    )(command)


def request_argument(command: _Command) -> _Command:
    """The request: by its id, the beginning of it, or the id of the message that asked for it."""
    command = click.option("--message", is_flag=True, help="REQUEST is the id of the message that asked.")(command)
    return click.argument("request", metavar="REQUEST")(command)


def identity_options(command: _Command) -> _Command:
    """Whom it is about, in the usual ways and in any other."""
    command = click.option(
        "--hashed", multiple=True, metavar="TYPE=HEX", help="A further identity as the SHA-256 of its normal form."
    )(command)
    command = click.option(
        "--identity", "others", multiple=True, metavar="TYPE=VALUE", help="Any further identity; may be repeated."
    )(command)
    for kind in reversed(IdentityType):
        name = kind.value.replace("_", "-")
        words = kind.value.replace("_", " ")
        command = click.option(f"--{name}", kind.value, metavar="VALUE", help=f"The person's {words}; - reads it.")(
            command
        )
    return command


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


# Personal data need not be on the command line. ---------------------------------------------------------------------


def typed(what: str, given: str) -> str:
    """A value from the command line; ``-`` reads it from standard input: one line, or asked for on a terminal."""
    if given != "-":
        return given
    if sys.stdin.isatty():
        return str(click.prompt(what, err=True))
    line = sys.stdin.readline()
    if not line.strip():
        raise click.UsageError(f"{what}: - says to read it from standard input, and no line was left there")
    return line.rstrip("\r\n")


def identities(given: dict[str, Any], others: tuple[str, ...], hashed: tuple[str, ...]) -> list[Identity]:
    """The identities of the options, normalised. Raises ``UsageError``, which names the option and never the value."""
    pairs = [
        (f"--{k.value.replace('_', '-')}", k.value, str(given[k.value]), "raw") for k in IdentityType if given[k.value]
    ]
    pairs += [("--identity", *pair("--identity", text), "raw") for text in others]
    pairs += [("--hashed", *pair("--hashed", text), "sha256") for text in hashed]
    found: list[Identity] = []
    for option, kind, value, form in pairs:
        try:
            found.append(normalise(kind, typed(kind, value), form))
        except ValueError as hint:
            raise click.UsageError(f"{option}: {hint}") from None
    return found


def pair(option: str, text: str) -> tuple[str, str]:
    """``name=value``. Raises ``UsageError``."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"{option}: write NAME=VALUE")
    return name.strip(), value
