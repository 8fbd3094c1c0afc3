"""The tutorial, typed in by a test: the demo is run and kept, and each command does what the page says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.deployment import eventually
from tests.support.pages import page

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PATIENCE = 180.0
"""Seconds for the demo to run."""


class Reader:
    """Somebody who types the page's commands, in order, and puts in the ids that were printed before."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "HABEAS_HOME": str(home)}
        self._ids = {"REQUEST": "", "MESSAGE": ""}
        self.said: list[tuple[str, str]] = []
        """What was typed, as the page has it, and what came of it."""

    def type(self, line: str) -> None:
        """One line. What is not there yet is asked for again, as a reader would a moment later."""
        words = [self._ids.get(word, word) for word in shlex.split(line)]
        module = {"habeas": ["-m", "orchestrator"], "python": []}[words[0]]
        allowed = {0, 1} if "legacy-crm" in line and "erasure" in line else {0}

        def attempt() -> subprocess.CompletedProcess[str] | None:
            done = subprocess.run(
                [sys.executable, *module, *words[1:]],
                cwd=self._folder,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return done if done.returncode in allowed else None

        done = eventually(attempt, line)
        assert done is not None
        self.said.append((line, done.stdout))
        found = UUID.findall(done.stdout)
        if line.startswith("habeas list") or "--wait" in line:
            self._ids["REQUEST"] = found[0] if found else ""
        elif line.startswith("habeas submit"):
            self._ids["MESSAGE"] = found[0]

    def heard(self, beginning: str) -> list[str]:
        """What came of the commands that begin like this."""
        return [out for line, out in self.said if line.startswith(beginning)]


@pytest.fixture
def kept_demo(
    tmp_path: Path, reaped: Callable[[int], None], reaped_postgres: Callable[[Path], None]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A small demo, kept running, and its home."""
    home = tmp_path / "home"
    reaped_postgres(home / "postgres")
    command = [sys.executable, "-m", "orchestrator", "demo", "--keep", "--people", "60", "--requests", "12"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HABEAS_")}
    with (tmp_path / "demo.txt").open("wb") as out:
        demo = subprocess.Popen(
            [*command, "--home", str(home)],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    reaped(demo.pid)
    printed = tmp_path / "demo.txt"
    eventually(
        lambda: "still running" in printed.read_text(errors="replace") or demo.poll() is not None, "the demo", PATIENCE
    )
    assert demo.poll() is None, printed.read_text(errors="replace")
    yield demo, home
    if demo.poll() is None:
        demo.send_signal(signal.SIGINT)
        demo.wait(PATIENCE)


def test_every_command_of_the_tutorial_does_what_the_page_says(
    kept_demo: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    demo, home = kept_demo
    reader = Reader(tmp_path, home)
    for block in page("docs/tutorial/first-request.md").blocks("console"):
        for line in block.splitlines():
            if re.match(r"\$ (habeas|python) ", line):
                reader.type(line.removeprefix("$ "))

    assert "everything holds" in reader.heard("habeas audit verify")[0]
    assert "<title>Your personal data</title>" in (tmp_path / "olga" / "index.html").read_text()
    gate, pause = reader.heard("habeas why")
    assert "waits for identity verification" in gate
    assert re.search(r"system logs is paused by \S+ \(trying it out\)", pause)
    (refusal,) = reader.heard("habeas submit erasure --source /shop/legacy-crm")
    assert "not_allowed" in refusal
    assert "not_allowed" in reader.heard("habeas quarantine list")[0]
    (erasure,) = reader.heard("habeas submit erasure --source /shop/account-service --email olga")
    assert "completed_with_exceptions" in erasure

    reader.type(
        "habeas submit access --source /shop/account-service --email olga.neumann.1@mail.example --verified x --wait 60"
    )
    assert set(re.findall(r"executed|retained|no_match", reader.said[-1][1])) == {"no_match"}
    demo.send_signal(signal.SIGINT)
    assert demo.wait(PATIENCE) == 0
