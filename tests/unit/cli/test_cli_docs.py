"""The reference pages say what the code says; every command has the same manners."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from orchestrator.cli import docs
from orchestrator.cli.main import cli
from orchestrator.logs import EVENTS
from orchestrator.settings import Settings
from orchestrator.web.metrics import catalogue

PROCESSES = {"intake", "worker", "clock", "up", "demo"}


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in docs.commands(group):
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize("name", docs.pages())
def test_a_reference_page_is_as_the_code_makes_it(name):
    made = docs.pages()[name]
    assert (docs.FOLDER / name).read_text(encoding="utf-8") == made, "run: python -m orchestrator.cli.docs --write"


def test_every_command_metric_setting_and_log_event_is_documented():
    pages = docs.pages()
    assert all(f"### habeas {name}\n" in pages["cli.md"] for name, _ in commands())
    assert all(f"`{name}`" in pages["metrics.md"] for name, *_ in catalogue())
    assert all(f"`HABEAS_{name.upper()}`" in pages["settings.md"] for name in Settings.model_fields)
    assert all(f"`{name}`" in pages["log-events.md"] for name in EVENTS)


@pytest.mark.parametrize(("name", "command"), [c for c in commands() if c[0] not in PROCESSES])
def test_every_command_gives_json_and_says_what_it_does(name, command):
    assert any("--json" in p.opts for p in command.params), name
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option)), name


@pytest.mark.parametrize(("name", "command"), list(docs.commands(cli)))
def test_the_list_of_commands_says_what_a_command_says_itself(name, command):
    assert command.name == name
    assert cli.commands[name].get_short_help_str(1000) == command.get_short_help_str(1000)


def test_whatever_changes_something_asks_who_does_it():
    acting = {
        "approve", "decline", "retry", "skip", "done", "cancel", "pause", "resume", "hold place", "hold release",
        "recover", "quarantine replay", "quarantine show", "package",
    }  # fmt: skip
    assert {name for name, c in commands() if any("--as" in p.opts for p in c.params)} == acting


def test_metrics_are_named_as_prometheus_advises_and_bear_no_unknown_labels():
    for name, kind, labels, text in catalogue():
        assert name.startswith("habeas_")
        assert name.endswith("_total") == (kind == "counter")
        assert set(labels.split(", ")) <= {"", "system", "state", "right", "resolution", "reason", "version", "source"}
        assert text
