"""The house rules that neither the formatter nor the linter holds."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.tree import ROOT, calls, functions, imports, pyproject, python_files, relative

SOURCES = ("orchestrator", "connectors", "examples", "deploy", "tools")
GENERATED = ("orchestrator/store/migrations/versions/",)
LONGEST_FILE = 400
LONGEST_FUNCTION = 50
MOST_DEPENDENCIES = 15
HOMES = {
    "duckdb": "connectors/sql/",
    "duckdb_engine": "connectors/sql/",
    "fideslang": "connectors/sql/",
    "hyperscan": "connectors/logs/",
    "pymysql": "connectors/sql/",
    "stripe": "connectors/payments/",
}
"""A vendor's or a format's package → the connector that alone may import it."""


def written() -> list[Path]:
    """Every source file that somebody wrote by hand."""
    return [path for path in python_files(*SOURCES) if not relative(path).startswith(GENERATED)]


def test_no_file_is_longer_than_can_be_read_in_one_sitting() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in written()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = [
        f"{relative(path)}: {name} has {length} lines"
        for path in written()
        for name, length in functions(path)
        if length > LONGEST_FUNCTION
    ]
    assert too_long == []


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert [relative(path) for path in written() if marks.search(path.read_text())] == []


def test_no_test_is_ever_skipped() -> None:
    skips = re.compile(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|xfail)")
    files = [path for path in python_files("tests") if path != Path(__file__)]
    assert [relative(path) for path in files if skips.search(path.read_text())] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in python_files("tests") if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)


def test_the_core_imports_the_standard_library_alone() -> None:
    strange = {
        f"{relative(path)}: {name}"
        for path in python_files("orchestrator/core")
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("orchestrator.core")
    }
    assert strange == set()


def test_the_core_reads_no_clock_and_rolls_no_dice() -> None:
    impure = re.compile(r"(^|\.)(now|utcnow|today|time|monotonic|uuid1|uuid4|open|print|input|token_\w+|random)$")
    found = {
        f"{relative(path)}: {call}"
        for path in python_files("orchestrator/core")
        for call in calls(path)
        if impure.search(call)
    }
    assert found == set()


def test_a_vendor_package_is_imported_by_its_connector_alone() -> None:
    strays = {
        f"{relative(path)}: {name}"
        for path in python_files("orchestrator", "connectors")
        for name in imports(path)
        if not relative(path).startswith(HOMES.get(name.split(".")[0], ""))
    }
    assert strays == set()


def test_every_room_of_the_orchestrator_has_its_place_in_the_import_rules() -> None:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    placed = set(re.findall(r"orchestrator\.(\w+)", rules["importlinter:contract:rooms"]["layers"]))
    below = (ROOT / "orchestrator").iterdir()
    rooms = {path.stem for path in below if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= placed


def test_the_core_asks_for_few_packages() -> None:
    assert len(pyproject()["project"]["dependencies"]) <= MOST_DEPENDENCIES


def dependencies() -> list[str]:
    project = pyproject()
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    names = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    return sorted(names - {"habeas"})


def test_every_dependency_says_why_it_is_here() -> None:
    """docs/design.md has an entry of a list or a table for each, with its name as code: ``- `celery`: …``."""
    lines = (ROOT / "docs" / "design.md").read_text().splitlines()
    reasons = " ".join(line for line in lines if line.lstrip().startswith(("-", "|", "*")))
    told = {canonicalize_name(name) for name in re.findall(r"`([A-Za-z0-9._-]+)(?:\[\w+\])?`", reasons)}
    assert [name for name in dependencies() if name not in told] == []


def test_changelog_fragments_have_a_kind_and_a_sentence() -> None:
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    for path in (ROOT / "newsfragments").iterdir():
        if path.name == "README.md":
            continue
        assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text().strip().endswith("."), f"{path.name} is not a sentence"
