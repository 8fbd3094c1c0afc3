"""The two commands of a newcomer."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.tree import ROOT


def plan(*words: str) -> str:
    """What ``make`` would run."""
    # The tests themselves may be run by make, which tells its children so.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_make_demo_runs_the_demo() -> None:
    assert re.search(r"^\.venv/bin/habeas demo\s*$", plan("demo"), re.MULTILINE)


def test_make_demo_can_leave_it_running() -> None:
    assert ".venv/bin/habeas demo --keep\n" in plan("demo", "KEEP=1")


@pytest.mark.parametrize("check", ["ruff format --check", "ruff check", "mypy", "lint-imports", "pytest -n 3"])
def test_make_test_checks_everything(check: str) -> None:
    assert check in plan("test")


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "lock"])
def test_every_target_sets_up_first(target: str) -> None:
    assert plan(target).splitlines()[0] == "tools/bootstrap"


@pytest.mark.parametrize("script", [".ci/run", "tools/bootstrap", "deploy/new-env"])
def test_a_script_can_be_run_and_has_no_fault_of_grammar(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & stat.S_IXUSR
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", str(path)], check=True)


def test_set_up_refuses_a_python_that_is_too_old_with_the_command_to_run(tmp_path: Path) -> None:
    # A checkout that is not set up, and a PATH with the tools of the script, but no Python and no apt.
    checkout, path = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "tools").mkdir(parents=True)
    for name in ("tools/bootstrap", "requirements.lock", "pyproject.toml"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    path.mkdir()
    for tool in ("sh", "id", "cksum", "cat", "ls", "dirname"):
        (path / tool).symlink_to(f"/usr/bin/{tool}")
    command = ["/bin/sh", str(checkout / "tools/bootstrap")]
    done = subprocess.run(command, env={"PATH": str(path)}, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends python3 python3-venv" in done.stderr


def test_ci_runs_make_test() -> None:
    assert re.search(r"^if make test\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)
