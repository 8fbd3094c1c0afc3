"""The package a person gets: one sealed ZIP of everything the systems gathered, built in constant memory.

Inside: ``index.html`` to read, ``index.json`` for programs, ``<system>/<collection>.jsonl`` and
``<system>/attachments/…``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.artifacts.archive import Archive
from orchestrator.artifacts.archive import Entry as File
from orchestrator.artifacts.names import NameBook, safe_name, safe_path
from orchestrator.artifacts.pages import Section, page_end, page_start, table
from orchestrator.artifacts.pieces import read_pieces
from orchestrator.artifacts.records import Artifact
from orchestrator.artifacts.spool import INLINE_LIMIT, Spool, Stored, open_stored, remove_stored
from orchestrator.artifacts.stream import CHUNK, SealingWriter, UnsealingReader, chunks
from orchestrator.core.model import Residue, Retention
from orchestrator.errors import VaultError
from orchestrator.privacy.vault import RequestKey

__all__ = ["About", "Package", "Part", "build_package", "open_package", "verify_package"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one access step gathered in one system."""

    system: str
    artifact: Artifact
    aad: str
    """The place it was sealed for."""
    gathered_at: datetime
    categories: frozenset[str] = frozenset()
    retained: tuple[Retention, ...] = ()
    residues: tuple[Residue, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What the package is an answer to."""

    request_id: str
    right: str
    regulation: str
    received_at: datetime
    prepared_at: datetime


@dataclass(frozen=True, slots=True)
class Package:
    """A finished package."""

    stored: Stored
    zip_size: int
    """Bytes of the ZIP, unsealed."""
    zip_digest: str
    """SHA-256 hex of the ZIP, unsealed: what ``verify_package`` must give again."""
    records: int
    files: int
    """Entries in the ZIP, the two indexes included."""


@dataclass(slots=True)
class _Entry:
    """One file of a system in the making."""

    path: str
    name: str
    total: int
    """Records of a collection, bytes of an attachment."""
    is_file: bool
    done: int = 0


@dataclass(slots=True)
class _Listing:
    """What the indexes will say of one part."""

    part: Part
    entries: list[_Entry] = field(default_factory=list)


def build_package(
    parts: Sequence[Part],
    about: About,
    key: RequestKey,
    aad: str,
    directory: Path,
    inline_limit: int = INLINE_LIMIT,
) -> Package:
    """Build it from artifacts of one request. ``aad`` names the place of the package itself.

    Raises ``VaultError`` and ``NotFound`` for artifacts that can't be read; nothing is left behind then.
    """
    spool = Spool(directory, inline_limit)
    page = _Page(key, directory)
    try:
        with closing(page):
            counted = _Counted(SealingWriter(spool, key, aad))
            archive = Archive(counted, about.prepared_at)
            build = _Build(archive, about, key, directory, page)
            listings = [build.add(part) for part in parts]
            build.write_index(listings)
            archive.finish()
            counted.finish()
            stored = spool.finish()
    except BaseException:
        spool.discard()
        raise
    records = sum(part.artifact.records for part in parts)
    return Package(stored, counted.size, counted.digest.hexdigest(), records, archive.files)


def open_package(stored: Stored, key: RequestKey, aad: str, directory: Path) -> io.BufferedReader:
    """The bytes of the ZIP, to be read from the start to the end and closed. Raises ``VaultError``, ``NotFound``."""
    return io.BufferedReader(UnsealingReader(open_stored(stored, directory), key, aad))


def verify_package(stored: Stored, key: RequestKey, aad: str, directory: Path) -> tuple[int, str]:
    """Read all of it; gives size and SHA-256 hex of the ZIP. Raises ``VaultError``, ``NotFound``."""
    digest, size = hashlib.sha256(), 0
    with open_package(stored, key, aad, directory) as package:
        for piece in chunks(package):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


class _Counted:
    """Counts and digests the ZIP on its way into the seal, a chunk at a time: heads and names are many and short."""

    def __init__(self, sealed: SealingWriter) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._sealed = sealed
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= CHUNK:
            self._pass_on()

    def finish(self) -> None:
        self._pass_on()
        self._sealed.finish()

    def _pass_on(self) -> None:
        self.size += len(self._held)
        self.digest.update(self._held)
        self._sealed.write(self._held)
        self._held.clear()


class _Page:
    """The sections of ``index.html``, kept until the summary above them is known: sealed if they are many."""

    def __init__(self, key: RequestKey, directory: Path) -> None:
        self._key = key
        self._directory = directory
        self._texts: list[str] = []
        self._held = 0
        self._spool: Spool | None = None
        self._sealed: SealingWriter | None = None
        self._stored: Stored | None = None

    def write(self, text: str) -> None:
        self._texts.append(text)
        self._held += len(text)
        if self._held >= INLINE_LIMIT:
            if self._sealed is None:
                self._spool = Spool(self._directory)
                self._sealed = SealingWriter(self._spool, self._key, "page")
            self._sealed.write(self._taken())

    def read(self) -> Iterator[bytes]:
        if self._spool is not None and self._sealed is not None:
            self._sealed.finish()
            self._stored = self._spool.finish()
            with closing(UnsealingReader(open_stored(self._stored, self._directory), self._key, "page")) as reader:
                yield from chunks(reader)
        yield self._taken()

    def close(self) -> None:
        if self._stored is not None:
            remove_stored(self._stored, self._directory)
        elif self._spool is not None:
            self._spool.discard()

    def _taken(self) -> bytes:
        data = "".join(self._texts).encode("utf-8", "replace")
        self._texts.clear()
        self._held = 0
        return data


class _Build:
    """One package under construction."""

    def __init__(self, archive: Archive, about: About, key: RequestKey, directory: Path, page: _Page) -> None:
        self._archive = archive
        self._about = about
        self._key = key
        self._directory = directory
        self._page = page
        self._names = NameBook()
        self._names.claim("index.html")
        self._names.claim("index.json")

    def add(self, part: Part) -> _Listing:
        """Write all files of one part."""
        listing = _Listing(part)
        folder = safe_name(part.system)
        for name, total in part.artifact.collections.items():
            path = self._names.claim(f"{folder}/{safe_name(name)}.jsonl")
            listing.entries.append(_Entry(path, name, total, is_file=False))
        for name, total in part.artifact.attachments.items():
            path = self._names.claim(f"{folder}/attachments/{safe_path(name)}")
            listing.entries.append(_Entry(path, name, total, is_file=True))
        pending = {(entry.is_file, entry.name): entry for entry in listing.entries}
        while pending:
            before = len(pending)
            self._pass(part, pending)
            if len(pending) == before:
                raise VaultError("an artifact does not hold what its index says")
        return listing

    def _pass(self, part: Part, pending: dict[tuple[bool, str], _Entry]) -> None:
        """Read the artifact once, writing each file whose pieces come while no other is open.

        A ZIP takes one file at a time. Connectors mostly write one collection after the other, and one pass does; where
        they mix them, those that were passed over wait for the next pass. The pieces go over as they are: only what the
        page shows is unpacked.
        """
        passed: set[tuple[bool, str]] = set()
        current: _Entry | None = None
        out: File | None = None
        section: Section | None = None
        for piece in read_pieces(part.artifact.stored, self._key, part.aad, self._directory):
            which = (piece.is_file, piece.name)
            entry = pending.get(which)
            if entry is None or which in passed:
                continue
            if current is None:
                current, out = entry, self._archive.open(entry.path)
                section = (
                    None if entry.is_file else Section(f"{part.system}: {entry.name}", entry.path, self._page.write)
                )
            if entry is not current or out is None:
                passed.add(which)
                continue
            self._archive.put(out, piece.packed, piece.size)
            entry.done += piece.count
            if section and not section.full:
                section.add(piece.records())
            if entry.done == entry.total:
                self._archive.close(out, piece.crc)
                if section:
                    section.finish(entry.total)
                del pending[which]
                current = out = section = None
        if out is not None:
            raise VaultError("an artifact does not hold what its index says")

    def write_index(self, listings: Sequence[_Listing]) -> None:
        """``index.json`` and ``index.html``."""
        index = json.dumps(self._index(listings), ensure_ascii=False)
        self._archive.add("index.json", [index.encode("utf-8", "replace")])
        self._archive.add("index.html", self._html(listings))

    def _html(self, listings: Sequence[_Listing]) -> Iterator[bytes]:
        start = self._summary(listings).encode("utf-8", "replace")
        for piece in self._page.read():
            yield start + piece
            start = b""
        yield page_end().encode()

    def _index(self, listings: Sequence[_Listing]) -> Mapping[str, Any]:
        about = self._about
        return {
            "format": "habeas.package.v1",
            "request_id": about.request_id,
            "right": about.right,
            "regulation": about.regulation,
            "received_at": about.received_at.isoformat(),
            "prepared_at": about.prepared_at.isoformat(),
            "systems": [_system(listing) for listing in listings],
        }

    def _summary(self, listings: Sequence[_Listing]) -> str:
        about = self._about
        files = [
            (
                e.path,
                listing.part.system,
                e.name,
                "" if e.is_file else e.total,
                listing.part.gathered_at.date().isoformat(),
            )
            for listing in listings
            for e in listing.entries
        ]
        kept = [
            (part.system, r.what, r.records, r.reason, r.legal_basis, r.until.isoformat() if r.until else "")
            for part in (listing.part for listing in listings)
            for r in part.retained
        ]
        text = page_start("Your personal data")
        text += table(
            "Your request",
            ("Request", "Right", "Regulation", "Received", "Prepared"),
            [
                (
                    about.request_id,
                    about.right,
                    about.regulation,
                    *(m.isoformat() for m in (about.received_at, about.prepared_at)),
                )
            ],
        )
        text += table("Contents", ("File", "System", "What", "Records", "Gathered on"), files, links=True)
        if kept:
            text += table("Kept, and why", ("System", "What", "Records", "Reason", "Legal basis", "Until"), kept)
        return text


def _system(listing: _Listing) -> Mapping[str, Any]:
    part = listing.part
    return {
        "system": part.system,
        "gathered_at": part.gathered_at.isoformat(),
        "categories": sorted(part.categories),
        "note": part.note,
        "collections": [{"name": e.name, "file": e.path, "records": e.total} for e in listing.entries if not e.is_file],
        "attachments": [{"name": e.name, "file": e.path, "bytes": e.total} for e in listing.entries if e.is_file],
        "retained": [
            {
                "what": r.what,
                "reason": r.reason,
                "legal_basis": r.legal_basis,
                "records": r.records,
                "until": r.until.isoformat() if r.until else None,
            }
            for r in part.retained
        ],
        "residues": [{"where": r.where, "until": r.until.isoformat()} for r in part.residues],
    }
