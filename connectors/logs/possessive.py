"""Regular expressions that some Pythons match wrongly: lines of people who are to be erased would be passed over.

Python before 3.11.5 (Debian 12 has 3.11.2) loses what was matched and captured inside possessive quantifiers (``*+``)
and atomic groups (``(?>…)``): https://github.com/python/cpython/issues/106052.
"""

from __future__ import annotations

import re
import sys
from typing import Final

__all__ = ["MISMATCHED", "has_possessive"]

MISMATCHED: Final[bool] = sys.version_info[:3] < (3, 11, 5)
"""Whether this Python is one of those."""


def has_possessive(pattern: str) -> bool:
    """Whether a regular expression has a possessive quantifier or an atomic group anywhere; raises ``re.error``."""
    return _among(re._parser.parse(pattern))  # type: ignore[attr-defined] # noqa: SLF001 - it knows the syntax; tests try it


def _among(part: object) -> bool:
    if isinstance(part, (list, tuple, re._parser.SubPattern)):  # type: ignore[attr-defined] # noqa: SLF001 - as above
        return any(map(_among, part))
    return str(part) in {"POSSESSIVE_REPEAT", "ATOMIC_GROUP"}
