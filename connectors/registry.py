"""Connector names and where their classes live: explicit for ours; entry points, or ``module:Class``, for others.

A class is imported when first asked for, so a connector whose extra is not installed costs nothing until it is used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from connectors.contract import Connector, MissingExtra

ENTRY_POINT_GROUP: Final = "habeas.connectors"

BUILT_IN: Final[dict[str, tuple[str, str]]] = {
    # name: (module:class, extra that it needs or "")
    "desk": ("connectors.desk:Desk", ""),
    "logs": ("connectors.logs:Logs", "logs"),
    "payments.stripe": ("connectors.payments.stripe:Stripe", "stripe"),
    "sql": ("connectors.sql:Sql", "sql"),
}


class UnknownConnector(LookupError):
    """No connector has this name."""


def names() -> list[str]:
    """Every connector that can be named in a systems file, sorted."""
    return sorted({*BUILT_IN, *(e.name for e in entry_points(group=ENTRY_POINT_GROUP))})


def load(name: str) -> type[Connector[Any]]:
    """The class of a connector.

    Raises ``UnknownConnector``, or ``MissingExtra`` with the line that installs what it needs.
    """
    target, extra = BUILT_IN.get(name, (name if ":" in name else "", ""))
    if not target:
        found = [e for e in entry_points(group=ENTRY_POINT_GROUP) if e.name == name]
        if not found:
            raise UnknownConnector(f"there is no connector {name!r}; there are: {', '.join(names())}")
        return found[0].load()  # type: ignore[no-any-return]
    module, _, class_name = target.partition(":")
    try:
        return getattr(import_module(module), class_name)  # type: ignore[no-any-return]
    except AttributeError as error:
        raise UnknownConnector(f"module {module} has no class {class_name}") from error
    except ModuleNotFoundError as error:
        if name == target:
            raise UnknownConnector(f"connector {name!r}: there is no module {error.name}") from error
        if extra and not (error.name or "").startswith(("connectors", "orchestrator")):
            raise MissingExtra(f"connector {name!r} needs {error.name}: pip install 'habeas[{extra}]'") from error
        raise
