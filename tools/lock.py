"""Writes requirements.lock: every dependency of every extra and of development, pinned, with its public hashes.

Local package folders and extra indexes are left out on purpose: a hash that only one machine can serve is worth nothing.
Run it with ``make lock``; pass package names to upgrade these alone (``make lock UPGRADE="celery kombu"``).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Everything that development, the tests and the demo need, pinned and with hashes. Made by `make lock`: do not edit.
"""
PRIVATE_SOURCES = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")


def wanted() -> list[str]:
    """What pyproject.toml asks for: the core, every extra and the development group, without the project itself."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    lists = [
        pyproject["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *pyproject["dependency-groups"].values(),
    ]
    return sorted({line for lines in lists for line in lines if not line.startswith(f"{project['name']}[")})


def compile_lock(upgrade: list[str]) -> str:
    """Resolve; packages that are locked already stay as they are, except those to upgrade."""
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE_SOURCES}
    environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "requirements.in", Path(folder) / "requirements.lock"
        source.write_text("\n".join(wanted()) + "\n")
        if LOCK.exists():
            output.write_text(LOCK.read_text())
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras"]
        command += ["--allow-unsafe", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--no-emit-trusted-host", "--resolver=backtracking", f"--output-file={output}"]
        command += [f"--upgrade-package={name}" for name in upgrade]
        subprocess.run([*command, str(source)], check=True, env=environment)  # noqa: S603 - pip-tools, of our own venv
        lines = output.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if line.strip() and not line.startswith("#"))


def main() -> None:
    """Write the lock file, unless what was resolved names a place that others cannot reach."""
    text = compile_lock(sys.argv[1:])
    places = re.findall(r"^.*(?:://| @ |--find-links|index-url).*$", text, re.MULTILINE)
    if places:
        sys.exit("the lock file would name places instead of packages:\n" + "\n".join(places))
    LOCK.write_text(HEADER + text)


if __name__ == "__main__":
    main()
