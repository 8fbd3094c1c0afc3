"""File names in a package: whatever systems call things, they stay inside the folder they belong to."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["NameBook", "safe_name", "safe_path"]

_MAX_SEGMENT = 100  # characters; with the suffix well below what any file system takes
_MAX_DEPTH = 6
_UNSAFE = re.compile(r"[<>:\"|?*\\/%]")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def safe_name(name: str) -> str:
    """One file name that every system takes: no separators, no control or formatting characters, never empty."""
    text = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c)[0] != "C")
    text = _UNSAFE.sub("_", text).strip(" .")
    if len(text) > _MAX_SEGMENT:
        stem, dot, suffix = text.rpartition(".")
        keep = f"{dot}{suffix}" if stem and len(suffix) <= 10 else ""  # noqa: PLR2004 - longer is no file type
        text = text[: _MAX_SEGMENT - len(keep)] + keep
    if _RESERVED.fullmatch(text):
        text = "_" + text
    return text or "unnamed"


def safe_path(path: str) -> str:
    """A relative path of safe names; ``..``, drives and roots are gone."""
    segments = [s for s in re.split(r"[/\\]", path) if s.strip(" .")]
    return "/".join(safe_name(segment) for segment in segments[-_MAX_DEPTH:]) or "unnamed"


class NameBook:
    """Gives every entry of one package a path of its own, also where case does not count."""

    def __init__(self) -> None:
        """Empty."""
        self._taken: set[str] = set()

    def claim(self, path: str) -> str:
        """``path``, or with ``-2``, ``-3``, … before its suffix when it, or a folder of its name, is taken."""
        folder, slash, name = path.rpartition("/")
        stem, dot, suffix = name.rpartition(".") if "." in name.lstrip(".") else (name, "", "")
        number = 1
        candidate = path
        while self._clashes(candidate):
            number += 1
            candidate = f"{folder}{slash}{stem}-{number}{dot}{suffix}"
        folded = candidate.casefold()
        self._taken.add(folded)
        # A file must not later take the name of a folder that something lies in.
        parts = folded.split("/")
        self._taken.update("/".join(parts[:end]) + "/" for end in range(1, len(parts)))
        return candidate

    def _clashes(self, path: str) -> bool:
        folded = path.casefold()
        parts = folded.split("/")
        parents = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return folded in self._taken or folded + "/" in self._taken or any(parent in self._taken for parent in parents)
