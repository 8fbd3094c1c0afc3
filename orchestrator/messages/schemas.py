"""The JSON Schemas of all messages, generated from the models: ``python -m orchestrator.messages.schemas --write``."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.messages.body import RequestBody
from orchestrator.messages.names import EVENT_TYPES, REQUEST_TYPE
from orchestrator.messages.outbound import Accepted, Completed, EventData, Refused, Waiting

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["DIRECTORY", "main", "schemas"]

DIRECTORY = Path(__file__).parents[2] / "docs" / "reference" / "schemas"
_EVENTS: tuple[type[EventData], ...] = (Accepted, Refused, Waiting, Completed)


def schemas() -> Mapping[str, str]:
    """File name → JSON Schema (draft 2020-12) of the ``data`` of that type of event."""
    models: dict[str, type[BaseModel]] = {REQUEST_TYPE: RequestBody}
    models |= {EVENT_TYPES[model.kind]: model for model in _EVENTS}
    return {f"{name}.json": _schema(name, model) for name, model in models.items()}


def _schema(name: str, model: type[BaseModel]) -> str:
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:habeas:schema:{name}",
        **model.model_json_schema(mode="validation" if model is RequestBody else "serialization"),
    }
    for part, properties in {model.__name__: document, **document.get("$defs", {})}.items():
        _describe(properties, _notes(model, part))
    if model is RequestBody:
        document["allOf"] = _rules()
    document["title"] = name
    _close(document)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _describe(schema: dict[str, Any], notes: Mapping[str, str]) -> None:
    fields = schema.get("properties", {})
    for name in fields.keys() & notes.keys():
        fields[name] = dict(sorted({**fields[name], "description": notes[name]}.items()))


def _notes(model: type[BaseModel], part: str) -> Mapping[str, str]:
    """What stands below the fields of a class beside ``model``, and of its bases.

    Pydantic can read it too (``use_attribute_docstrings``), but would whenever a process starts, for a sixth of the
    time that takes.
    """
    module = sys.modules[model.__module__]
    bodies = {c.name: c.body for c in ast.parse(inspect.getsource(module)).body if isinstance(c, ast.ClassDef)}
    notes: dict[str, str] = {}
    for base in reversed(getattr(vars(module).get(part), "__mro__", ())):
        for field, note in pairwise(bodies.get(base.__name__, [])):
            match field, note:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    notes[name] = inspect.cleandoc(text)
                case _:
                    pass
    return notes


def _close(node: Any) -> None:
    """Keys that match no pattern are refused by the model; pydantic's schema leaves that out."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node.setdefault("additionalProperties", False)
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            _close(child)


def _rules() -> list[dict[str, Any]]:
    """Which fields go with which right: the model checks this in code, so it is said here in the schema's words."""
    absent = {"type": "null"}
    rectification = {"properties": {"right": {"const": "rectification"}}}
    purposes = {"properties": {"right": {"enum": ["objection", "restriction"]}}}
    return [
        {
            "if": rectification,
            "then": {"required": ["corrections"], "properties": {"corrections": {"type": "object"}}},
            "else": {"properties": {"corrections": absent}},
        },
        {"if": purposes, "else": {"properties": {"purposes": absent}}},
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or say which differ (exit status 1)."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.messages.schemas", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the files; otherwise only compare")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    options = parser.parse_args(arguments)
    stale = []
    for name, text in schemas().items():
        path: Path = options.directory / name
        if options.write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run python -m orchestrator.messages.schemas --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
