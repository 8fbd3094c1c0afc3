"""No regular expression of ours is one that some Pythons match wrongly."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.logs.jsonl import JsonLines
from connectors.logs.possessive import has_possessive

ROOT = Path(__file__).parents[3]
SHIPPED = ("connectors", "orchestrator", "examples", "deploy", "tools", "benchmarks")
POSSESSIVE = re.compile(r"(?<!\\)(?:\\\\)*[*+?}]\+|\(\?>")
"""In the text of a pattern, or of a part of one."""


def texts(source: str) -> Iterator[str]:
    """Every string constant of a module but its docstrings; what is put into an f-string stands as one letter."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
        elif isinstance(node, ast.Constant) and id(node) not in alone | inside:
            value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(value, str):
                yield value


def possessive_texts(source: str) -> list[str]:
    return [text for text in texts(source) if POSSESSIVE.search(text)]


def test_no_source_has_possessive_quantifiers_or_atomic_groups() -> None:
    """Python before 3.11.5, Debian 12's among them, matches them wrongly: lines of erased people were left behind."""
    files = [file for folder in SHIPPED for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {str(file.relative_to(ROOT)): possessive_texts(file.read_text(encoding="utf-8")) for file in files}
    assert {name: some for name, some in found.items() if some} == {}


@pytest.mark.parametrize(
    "source",
    [
        r're.compile(r"[ \t]*+")',
        r"SPACE = rf'{A}{{0,3}}+'",
        r're.compile(rb"a++")',
        r're.compile(rf"(?:{A}|\d?+)")',
        r're.compile("(?>a)")',
        r're.compile(r"\\*+")',
    ],
)
def test_they_would_be_seen(source: str) -> None:
    assert possessive_texts(source)


@pytest.mark.parametrize("source", [r're.compile(r"\*+[+*]a+")', "f'{kind}+json'", "'''x++'''"])
def test_what_only_looks_like_them_is_let_be(source: str) -> None:
    assert not possessive_texts(source)


@pytest.mark.parametrize("names", [["a"], ["a.b", "a.c.d", "e"], [f"field{n}" for n in range(9)]])
def test_what_is_built_for_json_lines_has_none_either(names: list[str]) -> None:
    lines = JsonLines(names)
    for match in (lines._simple, *lines._strides.values()):
        assert not has_possessive(match.__self__.pattern)


@pytest.mark.parametrize("pattern", ["a*+", "(x|(?:y(?=z?+)))", "a{2}+", "(?P<user_id>(?>a|ab))"])
def test_possessive_patterns_are_recognised(pattern: str) -> None:
    assert has_possessive(pattern)


@pytest.mark.parametrize("pattern", ["a*", "(a+)b?", "[*+]+", r"\*+", "(?P<x>.*?)(?i:b)(?P=x)"])
def test_others_are_not_taken_for_possessive(pattern: str) -> None:
    assert not has_possessive(pattern)
