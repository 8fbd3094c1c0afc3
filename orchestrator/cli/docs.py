"""Writes the reference pages that are made from the code: ``python -m orchestrator.cli.docs --write``.

A test holds the pages in ``docs/reference`` equal to what this makes; nobody edits them by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click

from orchestrator.cli.exits import Exit
from orchestrator.cli.main import cli
from orchestrator.logs import EVENTS
from orchestrator.settings import PREFIX, SECRETS, Settings
from orchestrator.web.metrics import catalogue

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
WIDTH = 100
"""Columns of the help texts."""
_MEANING = {
    Exit.OK: "done",
    Exit.REFUSED: "not found, not allowed in this state, refused, broken (`audit verify`), or not answered in time",
    Exit.USAGE: "the command line is wrong",
    Exit.CONFIGURATION: "settings or definition files have faults, or the schema is another version's; all are printed",
    Exit.UNAVAILABLE: "the database or the broker does not answer; try again",
}
_MADE = "<!-- Made by `python -m orchestrator.cli.docs --write`; do not edit. -->\n"

_CLI = """\
Tables for people on standard output, errors as one line on standard error. `--json` gives JSON instead, with times in
RFC 3339. A request is named by its id, by the first 8 hex digits of it or more, or with `--message` by the id of the
message that asked for it. What operators do is recorded in the audit trail under their name (`--as`, or the user of
the operating system).

Where a value is personal data, `-` reads it from standard input: it need not be in the shell's history.
"""

_METRICS = """\
Every process serves `/metrics` on `HABEAS_HEALTH_HOST`:`HABEAS_HEALTH_PORT`, in Prometheus's text format. What is read
from the database is the same whichever process is asked: take `max` over the processes, not `sum`. It is kept for 2
seconds, and longer where reading it takes long, at most a minute: scrapes never take more than a fiftieth of one
database session. No label holds personal data.

Scale workers on `habeas_steps{state="ready"}` and `habeas_oldest_ready_seconds`, not on the length of queues, which is
near zero by design.
"""
_OTHER_METRICS = "Besides these there are `process_*` and `python_info` of each process.\n"

_SETTINGS = """\
A setting is read from the environment variable; or else from the file that the variable with `_FILE` appended names
(`HABEAS_MASTER_KEY_FILE=/run/secrets/key`); or else from the YAML file that `HABEAS_CONFIG` names, where it stands
without the prefix in lower case (`lease_seconds: 20`) and paths start at the file's own folder; or else it has its
default. A variable that begins with `HABEAS_` and is no setting is an error, so that a typo can't pass for a default.

`habeas check` tells all faults at once. Secrets are never printed.
"""

_LOGS = """\
Logs go to standard error, one event a line, as text or as JSON (`HABEAS_LOG_FORMAT`). `event` is one of these names;
they do not change. Personal data is redacted on its way out.
"""


def pages() -> Mapping[str, str]:
    """File name → text."""
    return {
        "cli.md": _cli(),
        "metrics.md": _metrics(),
        "settings.md": _settings(),
        "log-events.md": _log_events(),
    }


def _cli() -> str:
    codes = _table(("code", "meaning"), ((str(int(e)), _MEANING[e]) for e in Exit))
    helps = (f"### {name}\n\n```text\n{text}\n```\n" for name, text in _helps())
    return "\n".join(["# The `habeas` command\n", _MADE, _CLI, "## Exit codes\n", codes, "## Commands\n", *helps])


def _helps() -> Iterator[tuple[str, str]]:
    """Name and help of every command, the whole first."""
    yield "habeas", _help(cli, "habeas")
    for name, command in commands(cli):
        yield f"habeas {name}", _help(command, f"habeas {name}")
        if isinstance(command, click.Group):
            for sub, inner in commands(command):
                yield f"habeas {name} {sub}", _help(inner, f"habeas {name} {sub}")


def commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group, by name, in the order of its help."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            yield name, command


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    return command.get_help(context).rstrip()


def _metrics() -> str:
    rows = ((f"`{name}`", kind, labels, text) for name, kind, labels, text in catalogue())
    listed = _table(("metric", "kind", "labels", "meaning"), rows)
    return "\n".join(["# Metrics\n", _MADE, _METRICS, listed, _OTHER_METRICS])


def _settings() -> str:
    rows = (
        (f"`{PREFIX}{name.upper()}`", _default(name), field.description or "")
        for name, field in Settings.model_fields.items()
    )
    return "\n".join(["# Settings\n", _MADE, _SETTINGS, _table(("setting", "default", "meaning"), rows)])


def _default(name: str) -> str:
    value = Settings.model_fields[name].default
    if name in SECRETS:
        return "none (secret)"
    if isinstance(value, Path) and value.is_absolute():
        return f"the {value.name} that are installed with Habeas"
    return f"`{value}`" if str(value) else "none"


def _log_events() -> str:
    rows = ((f"`{name}`", meaning) for name, meaning in EVENTS.items())
    return "\n".join(["# Log events\n", _MADE, _LOGS, _table(("event", "meaning"), rows)])


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(columns)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--write", is_flag=True, help="Write the pages; without it, only tell which are out of date.")
def main(write: bool) -> None:
    """Make the reference pages."""
    stale = [name for name, text in pages().items() if not _is(FOLDER / name, text)]
    for name in stale:
        if write:
            (FOLDER / name).write_text(pages()[name], encoding="utf-8")
        click.echo(f"{'wrote' if write else 'out of date:'} {name}")
    if stale and not write:
        raise SystemExit(int(Exit.REFUSED))


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
