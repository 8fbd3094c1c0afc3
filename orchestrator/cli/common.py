"""What the commands share."""

from __future__ import annotations

from orchestrator import settings
from orchestrator.runtime import Runtime


def runtime_for(name: str) -> Runtime:
    """A runtime from the environment. Raises ``ConfigurationError``."""
    return Runtime(settings.read(), name)
