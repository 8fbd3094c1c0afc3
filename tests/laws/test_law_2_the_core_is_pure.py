"""Law 2: the core imports the standard library alone, and has no clock, no chance, no input and no output."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "orchestrator" / "core"
MODULES = sorted(CORE.glob("*.py"))

ALLOWED = frozenset({"__future__", "calendar", "collections", "dataclasses", "datetime", "enum", "typing", "uuid"})
"""What the core may import of the standard library: shapes and arithmetic."""
IMPURE_CALLS = frozenset(
    {"now", "utcnow", "today", "time", "monotonic", "uuid1", "uuid4", "open", "print", "input", "sleep"}
)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the core imports by full name"
            yield node.module or ""


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node.lineno


def faults(text: str) -> list[str]:
    """Everything in a module's text that is not pure."""
    tree = ast.parse(text)
    strange = [m for m in imports(tree) if m.split(".")[0] not in ALLOWED and not m.startswith("orchestrator.core")]
    impure = [f"{name} (line {line})" for name, line in calls(tree) if name in IMPURE_CALLS]
    shared = [f"global (line {n.lineno})" for n in ast.walk(tree) if isinstance(n, ast.Global | ast.Nonlocal)]
    return strange + impure + shared


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_of_the_core_is_pure(module: Path) -> None:
    assert faults(module.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import random",
        "from time import time",
        "import orchestrator.store",
        "datetime.now(UTC)",
        "uuid4()",
        "open('x')",
    ],
)
def test_the_check_sees_what_is_not_pure(text: str) -> None:
    assert faults(text)


def test_the_core_loads_with_nothing_but_the_standard_library() -> None:
    names = [f"orchestrator.core.{path.stem}" for path in MODULES if path.stem != "__init__"]
    code = (
        "import sys, importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "tops = {m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'__main__', 'orchestrator'}\n"
        "print(sorted(t for t in tops if not t.startswith('_')))\n"
        "ours = {m for m in sys.modules if m.startswith('orchestrator.')}\n"
        "print(sorted(m for m in ours if not m.startswith('orchestrator.core')))"
    )
    root = str(CORE.parents[1])
    # -S -E: neither installed packages nor the environment can lend a hand.
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "[]"]
