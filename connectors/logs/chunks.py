"""From a stream of bytes to chunks of whole lines, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Chunk", "chunks"]


class Chunk(NamedTuple):
    """Some bytes of a file, ``buffer[:end]``, until the next chunk is asked for. Put together, chunks are the file."""

    buffer: bytearray
    end: int
    whole: bool
    """Whole lines (the last may lack its line end); otherwise a piece of a line that is too long to be looked at."""


def chunks(read: Callable[[memoryview], int], longest: int, size: int) -> Iterator[Chunk]:
    """Whole lines, about ``size`` bytes of them at a time; lines of more than ``longest`` bytes in pieces.

    ``read`` fills a buffer as ``readinto`` does. There is one buffer, used again and again: fresh memory for each chunk
    costs more than looking for a thousand people in it does.
    """
    buffer, held, passing = bytearray(2 * size), 0, False
    while more := read(memoryview(buffer)[held : held + size]):
        held += more
        if passing:
            end = buffer.find(b"\n", 0, held) + 1
            passing = not end
            yield Chunk(buffer, end or held, whole=False)
            held = _to_the_front(buffer, end or held, held)
            continue
        end = buffer.rfind(b"\n", 0, held) + 1
        if end:
            yield Chunk(buffer, end, whole=True)
            held = _to_the_front(buffer, end, held)
        if held > longest:
            yield Chunk(buffer, held, whole=False)
            passing, held = True, 0
        if held + size > len(buffer):
            buffer = buffer + bytes(len(buffer))  # not in place: a chunk's reader may still hold on to it
    if held:
        yield Chunk(buffer, held, whole=True)


def _to_the_front(buffer: bytearray, at: int, held: int) -> int:
    """Keep the bytes from ``at`` on; returns how many there are."""
    rest = held - at
    with memoryview(buffer) as view:
        # From view to view: what goes by ``buffer[:rest] = …`` is copied as if source and target never overlapped.
        view[:rest] = view[at:held]
    return rest
