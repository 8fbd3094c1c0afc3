"""Exit codes, and errors that are one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.exits import Exit
from orchestrator.cli.failures import failure
from orchestrator.cli.main import cli
from orchestrator.errors import (
    ConfigurationError,
    Conflict,
    Fault,
    NotFound,
    Refusal,
    RefusedMessage,
    Unavailable,
    VaultError,
)
from orchestrator.privacy.vault import MasterKeys

SYSTEMS = """\
systems:
  - name: archive
    connector: desk
    cannot: {access: on paper, rectify: on paper, restrict: on paper, suppress: on paper}
    config:
      categories: [user]
      identified_by: [user_id]
      instructions: {erase: Shred the folder.}
"""
SOURCES = "sources:\n  - source: urn:test\n    unsigned: allowed\n"


def habeas(*arguments: str, **environment: str) -> Result:
    nowhere = {"HABEAS_HOME": "/nowhere", "HABEAS_DATABASE_URL": "postgresql://127.0.0.1:9/none"}
    return CliRunner(env={**nowhere, **environment}).invoke(cli, list(arguments))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no"), Exit.REFUSED),
        (Conflict("no"), Exit.REFUSED),
        (VaultError("no"), Exit.REFUSED),
        (RefusedMessage(Refusal.MALFORMED, "no"), Exit.REFUSED),
        (ConfigurationError("no", [Fault("a", file="f", line=3), Fault("b")]), Exit.CONFIGURATION),
        (Unavailable("no"), Exit.UNAVAILABLE),
        (ConnectionRefusedError("no"), Exit.UNAVAILABLE),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    failed = failure(error)
    assert failed is not None
    assert failed.exit_code == code


def test_a_defect_keeps_its_traceback():
    assert failure(ValueError("a defect")) is None


def test_all_faults_of_a_configuration_are_told_at_once():
    failed = failure(
        ConfigurationError("the settings have faults", [Fault("is bad", file="f", line=3), Fault("worse")])
    )
    assert failed is not None
    assert failed.message == "the settings have faults\n  f:3: is bad\n  worse"


def test_a_database_that_does_not_answer_is_one_line_and_code_4():
    result = habeas("list")
    assert result.exit_code == 4
    assert result.stderr == "habeas: the database does not answer (OperationalError)\n"


def test_a_misspelt_setting_is_code_3_and_a_misspelt_option_code_2():
    assert habeas("list", HABEAS_LEASE_SECOND="5").exit_code == 3
    assert habeas("list", "--opne").exit_code == 2
    assert habeas("lst").exit_code == 2


# check, new-key, version. -------------------------------------------------------------------------------------------


def folder(tmp_path: Path, systems: str = SYSTEMS, sources: str = SOURCES) -> dict[str, str]:
    (tmp_path / "systems.yaml").write_text(systems)
    (tmp_path / "sources.yaml").write_text(sources)
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    (workflows / "regulations.yaml").write_text("regulations:\n  gdpr: {months: 1}\n")
    (workflows / "categories.yaml").write_text("categories:\n  everything: [user]\n")
    (workflows / "erasure.yaml").write_text(
        "workflow: erasure\nversion: 1\nright: erasure\nsteps:\n  - {id: erase, action: erase}\n"
    )
    return {
        "HABEAS_SYSTEMS": str(tmp_path / "systems.yaml"),
        "HABEAS_SOURCES": str(tmp_path / "sources.yaml"),
        "HABEAS_WORKFLOWS": str(workflows),
        "HABEAS_MASTER_KEY": MasterKeys.generate("test"),
    }


def test_a_good_configuration_is_said_to_be_good(tmp_path):
    result = habeas("check", **folder(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "all is well: 1 workflows, 1 systems (archive)\n")
    told = json.loads(habeas("check", "--json", **environment(tmp_path)).stdout)
    assert told == {"faults": [], "systems": ["archive"], "workflows": ["erasure"]}


def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a folder that is there already."""
    return {
        "HABEAS_SYSTEMS": str(tmp_path / "systems.yaml"),
        "HABEAS_SOURCES": str(tmp_path / "sources.yaml"),
        "HABEAS_WORKFLOWS": str(tmp_path / "workflows"),
        "HABEAS_MASTER_KEY": MasterKeys.generate("test"),
    }


def test_every_fault_of_every_file_and_setting_is_told_at_once(tmp_path):
    variables = folder(
        tmp_path,
        SYSTEMS.replace("connector: desk", "connector: dsek"),
        SOURCES.replace("unsigned: allowed", "unsigned: perhaps"),
    )
    result = habeas("check", **{**variables, "HABEAS_MASTER_KEY": "short", "HABEAS_LEASE_SECONDS": "-1"})
    assert result.exit_code == 3
    for told in (f"{tmp_path}/systems.yaml:3: ", f"{tmp_path}/sources.yaml:3: ", "lease_seconds: "):
        assert told in result.stderr, told
    result = habeas("check", **{**variables, "HABEAS_MASTER_KEY": "short"})
    assert "HABEAS_MASTER_KEY: " in result.stderr
    assert "short" not in result.stderr.replace("is too short", "")


def test_online_a_database_that_does_not_answer_is_code_4(tmp_path):
    result = habeas("check", "--online", HABEAS_BROKER_URL="amqp://127.0.0.1:9//", **folder(tmp_path))
    assert result.exit_code == 4
    assert "HABEAS_DATABASE_URL: the database does not answer" in result.stderr
    assert "HABEAS_BROKER_URL: the broker does not answer" in result.stderr


def test_a_new_key_is_one_that_can_be_used():
    made = habeas("new-key", "--name", "k1").stdout.strip()
    assert MasterKeys.parse(made).ids() == ("k1",)
    assert habeas("new-key", "--signing").stdout.startswith("whsec_")
    assert habeas("new-key", "--signing", "--name", "k1").exit_code == 2
    assert habeas("new-key", "--name", "no spaces").exit_code == 3


def test_the_version_names_the_schema_it_needs():
    told = json.loads(habeas("version", "--json").stdout)
    assert told["schema"] in habeas("version").stdout
