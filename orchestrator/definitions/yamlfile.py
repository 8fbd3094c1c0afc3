"""Reading YAML with line numbers, and secrets by reference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.errors import Fault

M = TypeVar("M", bound=BaseModel)
Where = tuple[str | int, ...]
"""The way to a value in a document, e.g. ``("systems", 2, "config", "url")``."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file's values, and the line on which each of them stands."""

    path: Path
    data: Any
    lines: Mapping[Where, int] = field(default_factory=dict)

    def fault(self, where: Where, message: str) -> Fault:
        """A fault at a value, or at the nearest value around it that the file has."""
        while where and where not in self.lines:
            where = where[:-1]
        return Fault(message, file=str(self.path), line=self.lines.get(where, 1))


def read(path: Path) -> tuple[Document, list[Fault]]:
    """A YAML file with its lines; a file that can't be read or parsed gives one fault and an empty document."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        return Document(path, {}), [Fault(f"cannot be read: {error.strerror}", file=str(path), line=1)]
    except UnicodeDecodeError:
        return Document(path, {}), [Fault("is not UTF-8 text", file=str(path), line=1)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return Document(path, {}), [Fault(f"is not YAML: {error.problem}", file=str(path), line=line)]
    except yaml.YAMLError:
        return Document(path, {}), [
            Fault("is not YAML: it has characters that YAML does not allow", file=str(path), line=1)
        ]
    lines: dict[Where, int] = {}
    repeats: list[tuple[int, str]] = []
    if node is not None:
        try:
            _walk(node, (), lines, repeats)
        except _Endless as endless:
            return Document(path, {}), [Fault("an alias holds itself", file=str(path), line=endless.line)]
    faults = [
        Fault(f"{key!r} is given twice; the second would win silently", file=str(path), line=line)
        for line, key in repeats
    ]
    return Document(path, data if data is not None else {}, lines), faults


class _Endless(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


def _walk(
    node: yaml.Node,
    where: Where,
    lines: dict[Where, int],
    repeats: list[tuple[int, str]],
    around: tuple[yaml.Node, ...] = (),
) -> None:
    if any(node is other for other in around):
        raise _Endless(node.start_mark.line + 1)
    around = (*around, node)
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                repeats.append((key.start_mark.line + 1, key.value))
            seen.add(key.value)
            lines[(*where, key.value)] = key.start_mark.line + 1
            _walk(value, (*where, key.value), lines, repeats, around)
    elif isinstance(node, yaml.SequenceNode):
        for n, value in enumerate(node.value):
            _walk(value, (*where, n), lines, repeats, around)


def validate(model: type[M], document: Document, data: Any = None, where: Where = ()) -> tuple[M | None, list[Fault]]:
    """``data`` (by default the whole document) as a pydantic model; or all its faults, at their lines."""
    try:
        context = {"directory": document.path.parent}
        return model.model_validate(document.data if data is None else data, context=context), []
    except ValidationError as error:
        return None, [
            document.fault((*where, *e["loc"]), f"{'.'.join(str(p) for p in (*where, *e['loc']))}: {_said(e)}")
            for e in error.errors(include_url=False, include_input=False)
        ]


def _said(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is not known here; is it misspelt?"
    if error["type"] == "missing":
        return "is missing"
    text = str(error["msg"])
    return text.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def resolve_secrets(
    document: Document, data: Any, where: Where, environment: Mapping[str, str] | None = None
) -> tuple[Any, list[Fault]]:
    """The data with each ``{env: NAME}`` and ``{file: PATH}`` replaced by what it refers to, and the faults.

    A secret is thus never in a definitions file. Relative paths start at the file's own folder; a final newline of a
    secret file is dropped.
    """
    env = os.environ if environment is None else environment
    if isinstance(data, dict):
        if set(data) == {"env"} and isinstance(data["env"], str):
            if data["env"] in env:
                return env[data["env"]], []
            return "", [document.fault(where, f"the environment variable {data['env']} is not set")]
        if set(data) == {"file"} and isinstance(data["file"], str):
            try:
                return (document.path.parent / data["file"]).read_text(encoding="utf-8").removesuffix("\n"), []
            except (OSError, UnicodeDecodeError):
                return "", [document.fault(where, f"the secret file {data['file']} cannot be read as text")]
        pairs = {k: resolve_secrets(document, v, (*where, k), env) for k, v in data.items()}
        return {k: v for k, (v, _) in pairs.items()}, [f for _, faults in pairs.values() for f in faults]
    if isinstance(data, list):
        items = [resolve_secrets(document, v, (*where, n), env) for n, v in enumerate(data)]
        return [v for v, _ in items], [f for _, faults in items for f in faults]
    return data, []
