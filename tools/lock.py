#!/usr/bin/env python
"""Writes the lock files: dependencies pinned, with their public hashes.

* ``requirements.lock``: every extra and development, for ``make``;
* ``deploy/requirements.lock``: the core and what its connectors need, for the image;
* ``deploy/demo/requirements.lock``: the demo's stand-in for Stripe, a program of its own.

Local package folders and extra indexes are left out on purpose: a hash that only one machine can serve is no use.
Run it with ``make lock``; name packages to upgrade these alone (``make lock UPGRADE="celery kombu"``).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Pinned, with hashes. Made by `make lock`: do not edit.\n"
PRIVATE_SOURCES = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")
EDITABLE = "editables>=0.5"
"""What hatchling asks for when a project is installed in place."""
NOT_IN_THE_IMAGE = {"embedded"}
"""Extras that containers have no use for."""


def wanted() -> dict[str, list[str]]:
    """Lock file → what it is resolved from, as pyproject.toml says; without the project itself."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    core = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    everything = [*core, *chain(*extras.values()), *chain(*pyproject["dependency-groups"].values()), EDITABLE]
    image = [*core, *chain(*(lines for name, lines in extras.items() if name not in NOT_IN_THE_IMAGE))]
    demo = [line for line in everything if line.startswith("localstripe")]
    lists = {"requirements.lock": everything, "deploy/requirements.lock": image, "deploy/demo/requirements.lock": demo}
    return {
        lock: sorted({line for line in lines if not line.startswith(f"{project['name']}[")})
        for lock, lines in lists.items()
    }


def resolve(requirements: list[str], pinned: str, upgrade: list[str]) -> str:
    """Resolve; what is ``pinned`` already stays as it is, except what is to be upgraded."""
    environment = {name: value for name, value in os.environ.items() if name not in PRIVATE_SOURCES}
    environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "requirements.in", Path(folder) / "requirements.lock"
        source.write_text("\n".join(requirements) + "\n")
        output.write_text(pinned)
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--strip-extras"]
        command += ["--allow-unsafe", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        command += ["--no-emit-trusted-host", "--resolver=backtracking", f"--output-file={output}"]
        command += [f"--upgrade-package={name}" for name in upgrade]
        subprocess.run([*command, str(source)], check=True, env=environment)  # noqa: S603 - pip-tools, of our own venv
        lines = output.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() and not line.startswith("#"))


def main() -> None:
    """Write the lock files, unless what was resolved names a place that others cannot reach."""
    everything = ROOT / "requirements.lock"
    for name, requirements in wanted().items():
        # The first holds all the others: one version of a package, wherever it is used.
        pinned = everything.read_text() if everything.exists() else ""
        text = resolve(requirements, pinned, sys.argv[1:] if name == everything.name else [])
        places = re.findall(r"^.*(?:://| @ |--find-links|index-url).*$", text, re.MULTILINE)
        if places:
            sys.exit(f"{name} would name places instead of packages:\n" + "\n".join(places))
        (ROOT / name).write_text(HEADER + text)


if __name__ == "__main__":
    main()
