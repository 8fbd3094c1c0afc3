"""From blocks of bytes to chunks of whole lines, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Chunk", "chunks"]


class Chunk(NamedTuple):
    """Some bytes of a file. Put together, a file's chunks are the file."""

    data: bytes
    whole: bool
    """Whole lines (the last may lack its line end); otherwise a piece of a line that is too long to be looked at."""


def chunks(blocks: Iterable[bytes], longest: int, size: int) -> Iterator[Chunk]:
    """Whole lines, at least ``size`` bytes of them at a time; lines of more than ``longest`` bytes in pieces."""
    parts: list[bytes] = []
    held, enough = 0, size
    passing = False
    for block in blocks:
        data = block
        if passing:
            end = data.find(b"\n") + 1
            yield Chunk(data[:end] if end else data, whole=False)
            passing, data = not end, data[end:] if end else b""
        parts.append(data)
        held += len(data)
        if held < enough:
            continue
        data = b"".join(parts)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Chunk(data[:cut], whole=True)
        rest = data[cut:]
        if len(rest) > longest:
            yield Chunk(rest, whole=False)
            passing, rest = True, b""
        parts, held = [rest], len(rest)
        enough = max(size, 2 * held)  # a long line must not be put together again for each block
    if held:
        yield Chunk(b"".join(parts), whole=True)
