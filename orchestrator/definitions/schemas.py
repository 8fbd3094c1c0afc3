"""JSON Schemas of the definition files, for editors: ``python -m orchestrator.definitions.schemas --write``.

They are made from the models that read the files, so an editor marks what ``habeas check`` would.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.definitions.loader import SourcesFile
from orchestrator.definitions.schema import CategoriesFile, RegulationsFile, SystemsFile, WorkflowFile

DIRECTORY = Path(__file__).parents[2] / "workflows" / "schemas"
_FILES: Mapping[str, tuple[str, type[BaseModel]]] = {
    "workflow": ("How one right is carried out", WorkflowFile),
    "systems": ("The systems that hold data about people", SystemsFile),
    "regulations": ("How long each regulation gives", RegulationsFile),
    "categories": ("The policy's categories of personal data", CategoriesFile),
    "sources": ("Who may ask for what", SourcesFile),
}
_SECRET = {
    "description": "A secret by reference: it never stands in a definitions file.",
    "oneOf": [
        {
            "type": "object",
            "properties": {name: {"type": "string", "minLength": 1}},
            "required": [name],
            "additionalProperties": False,
        }
        for name in ("env", "file")
    ],
}


def schemas() -> Mapping[str, str]:
    """File name → JSON Schema (draft 2020-12)."""
    return {f"{name}.schema.json": _schema(name, title, model) for name, (title, model) in _FILES.items()}


def _schema(name: str, title: str, model: type[BaseModel]) -> str:
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:habeas:definitions:{name}",
        **model.model_json_schema(),
        "title": title,
    }
    _by_reference(document)
    for definition in document.get("$defs", {}).values():
        if definition.get("title") == "StepEntry":
            definition["oneOf"] = [{"required": ["action"]}, {"required": ["gate"]}]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _by_reference(node: Any) -> None:
    """Where a text may stand that is secret, a reference to it may stand as well."""
    if isinstance(node, dict):
        if node.get("format") == "password":
            plain = dict(node)
            node.clear()
            node["anyOf"] = [_SECRET, plain]
            return
        if isinstance(node.get("default"), list):
            node["default"].sort()  # of a set: its order is chance
        for child in node.values():
            _by_reference(child)
    elif isinstance(node, list):
        for child in node:
            _by_reference(child)


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with ``--check`` say which are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true")
    choice.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    stale = [n for n, text in schemas().items() if _read(DIRECTORY / n) != text]
    if given.write:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        for name in stale:
            (DIRECTORY / name).write_text(schemas()[name], encoding="utf-8")
        return 0
    for name in stale:
        sys.stderr.write(f"{name} is not current: python -m orchestrator.definitions.schemas --write\n")
    return 1 if stale else 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
