"""A command that only looks starts without the engine, and what it logs all the same holds no personal data."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ENGINE = ("alembic", "celery", "kombu", "structlog", "connectors", "orchestrator.runtime", "orchestrator.broker")
DATABASE = ("sqlalchemy", "psycopg", "pydantic", "rich")


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def loaded(*arguments: str) -> set[str]:
    """What a command that was told to help has imported."""
    program = (
        "import json, sys\nfrom orchestrator.cli.main import cli\n"
        f"cli({list(arguments)!r}, standalone_mode=False)\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    return set(json.loads(python(program).stderr))


def test_the_list_of_commands_needs_none_of_them() -> None:
    assert loaded("--help") & {*ENGINE, *DATABASE} == set()


@pytest.mark.parametrize("command", ["list", "show"])
def test_a_command_that_looks_needs_the_database_and_not_the_engine(command: str) -> None:
    assert loaded(command, "--help") & {*ENGINE, *DATABASE} == set(DATABASE)


def test_a_librarys_warning_and_a_crash_are_told_without_personal_data() -> None:
    done = python(
        "import logging\nfrom orchestrator.cli import quiet\nquiet.listen()\n"
        "logging.getLogger('library').warning('no answer for %s', 'ada@example.org')\n"
        "raise ValueError('ada@example.org')"
    )
    assert done.returncode == 1
    assert "no answer for" in done.stderr
    assert "process.crashed" in done.stderr
    assert "ada@example.org" not in done.stderr
