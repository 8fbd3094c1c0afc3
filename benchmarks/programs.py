"""Programs that are measured from outside: told a word on a line of standard input, they answer with a line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import WrongResult

Found = Mapping[str, Any]
"""What a program says it did; ``wrong``: a list of what was not right."""


class Program:
    """One of them, running."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> None:
        """Starts it. What it says besides goes to a log."""
        self.module = module
        command = [sys.executable, "-m", module, *arguments]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, env=environment
            )

    def tell(self, *words: str | int) -> None:
        """Have it begin."""
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def hear(self) -> Found:
        """What it found. Raises ``WrongResult``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WrongResult(f"{self.module} ended")
        found: Found = json.loads(line)
        if found["wrong"]:
            raise WrongResult(f"{self.module}: {found['wrong']}")
        return found

    def ask(self, *words: str | int) -> Found:
        """Tell, and hear."""
        self.tell(*words)
        return self.hear()


@contextmanager
def running(module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> Iterator[Program]:
    """A program for the length of a measurement."""
    program = Program(module, *arguments, environment=environment, log=log)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def answer(words: Mapping[str, Callable[..., Found]]) -> None:
    """The program's side: do what it is told, line by line. Arguments are whole numbers."""
    for line in sys.stdin:
        word, *arguments = line.split()
        print(json.dumps(words[word](*map(int, arguments))), flush=True)
