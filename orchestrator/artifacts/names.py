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
    text = name
    if not (name.isascii() and name.isprintable()):
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
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, path: str) -> str:
        """``path``, with ``-2``, ``-3``, … in the names that are taken: a file's by anything, a folder's by a file."""
        *folders, name = path.split("/")
        place = ""
        for folder in folders:
            free = self._free(place, folder, self._files)
            self._folders.add(free.casefold())
            place = free + "/"
        free = self._free(place, name, self._files, self._folders)
        self._files.add(free.casefold())
        return free

    @staticmethod
    def _free(place: str, name: str, *taken: set[str]) -> str:
        stem, dot, suffix = name.rpartition(".") if "." in name.lstrip(".") else (name, "", "")
        candidate, number = place + name, 1
        while any(candidate.casefold() in names for names in taken):
            number += 1
            candidate = f"{place}{stem}-{number}{dot}{suffix}"
        return candidate
