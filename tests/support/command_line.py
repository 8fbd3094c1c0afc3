"""``habeas`` run in this process, on the deployment of a test's world."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.settings import SECRETS, Settings
from tests.support.worlds import World

NOWHERE = "amqp://guest:guest@127.0.0.1:9/"
"""A broker that does not answer: operators must be able to work without."""


class CommandLine:
    """Runs commands."""

    def __init__(self, environment: dict[str, str]) -> None:
        """``environment``: the settings, as variables."""
        self.environment = environment

    def __call__(self, *arguments: object, code: int = 0, stdin: str = "") -> Result:
        """Run a command, and hold it to its exit code; an exception that gets out fails the test."""
        result = CliRunner(env=self.environment).invoke(cli, [str(a) for a in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output + result.stderr
        return result

    def json(self, *arguments: object, **how: Any) -> Any:
        """What a command says with ``--json``."""
        return json.loads(self(*arguments, "--json", **how).stdout)


MakeCommandLine = Callable[..., CommandLine]


@pytest.fixture
def habeas() -> MakeCommandLine:
    """``habeas(world)``: its command line, without a broker unless ``broker_url`` says so."""

    def make(world: World, **more: str) -> CommandLine:
        known = {"HABEAS_BROKER_URL": NOWHERE, "HABEAS_HOME": str(world.folder / "home")}
        return CommandLine({**variables(world.settings), **known, **more})

    return make


def variables(settings: Settings) -> dict[str, str]:
    """Settings as environment variables."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {
        f"HABEAS_{name.upper()}": value.get_secret_value() if name in SECRETS else str(value)
        for name, value in given.items()
    }
