"""What is done with one open file: it is searched, or written anew. In the worker itself, or in a process beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO, FileIO
from typing import NamedTuple

from connectors.logs.batch import Batch, Tally
from connectors.logs.codecs import BLOCK, Bytes, encoder
from connectors.logs.files import LogFile, from_os_error
from connectors.logs.formats import Span

__all__ = ["Line", "Order", "erase_in", "find_in"]


class Order(NamedTuple):
    """What a process beside the worker is to do with a file, whose descriptor comes with it."""

    file: LogFile
    erasing: bool
    telling: bool
    """Of each line that is somebody's; where nothing is erased."""


class Line(NamedTuple):
    """A line that is somebody's."""

    number: int
    """From 1."""
    holding: dict[int, list[Span]]
    """Task → the fields in its scope."""
    spans: list[Span]
    """All fields."""


def find_in(batch: Batch, file: LogFile, stream: FileIO, tell: Callable[[Line], object] | None) -> Tally:
    """Count each task's lines with fields in its scope, and tell of each line, if anybody wants to know."""
    tally, name = Tally(files=1), batch.source(file).name
    number = 1  # of the line at which the chunk starts, or the last hit
    for chunk, hits in batch.lines(file, stream, tally):
        at = 0
        for hit in hits:
            if hit is None:
                tally.unparsed += 1
                continue
            holding = batch.holding(file, hit)
            for task in holding:
                tally.lines[task, name] += 1
            if tell is not None and holding:
                number += chunk.buffer.count(b"\n", at, hit.start)
                at = hit.start
                tell(Line(number, holding, list(hit.spans)))
        if tell is not None:
            number += chunk.buffer.count(b"\n", at, chunk.end)
    return tally


def erase_in(batch: Batch, file: LogFile, stream: FileIO, begin: Callable[[], int]) -> Tally:
    """Write the file without the lines that a task is about, to the descriptor that ``begin`` gives.

    It is asked only if there are such lines and the file is not live. Whose they are is told by the tally.
    """
    tally, start, unparsed = Tally(files=1), 0, 0
    for changed, _, size in _edited(batch, file, stream, tally):
        if changed and not file.live:
            break
        start, unparsed = start + size, tally.unparsed
    else:
        return Tally(live=tally.lines, files=1, unparsed=tally.unparsed)
    tally = Tally(files=1, rewritten=1, unparsed=unparsed)
    try:
        with open(begin(), "wb", buffering=BLOCK, closefd=False) as new:
            compress = encoder(file.kind)
            for _, data, _ in _edited(batch, file, stream, tally, start):
                _write_all(new.write, compress.compress(data))
            _write_all(new.write, compress.flush())
    except OSError as error:
        raise from_os_error(error, file.name) from error
    return tally


def _write_all(write: Callable[[Bytes], object], data: Bytes) -> None:
    if data:  # a compressor gathers first
        write(data)


def _edited(
    batch: Batch, file: LogFile, stream: FileIO, tally: Tally, start: int = 0
) -> Iterator[tuple[bool, memoryview, int]]:
    """The file as erasure leaves it, chunk by chunk: whether it was changed, the chunk, and its size before.

    A chunk is there until the next is asked for. Lines up to the byte ``start`` are known to stay. Fills the tally.
    """
    name, changed = batch.source(file).name, BytesIO()
    for chunk, hits in batch.lines(file, stream, tally, start=start):
        data, parts, at = memoryview(chunk.buffer)[: chunk.end], list[Bytes](), 0
        for hit in hits:
            if hit is None:
                tally.unparsed += 1
                continue
            edit = batch.edit(file, hit)
            if edit is None:
                continue
            for task in edit.tasks:
                tally.lines[task, name] += 1
            parts.append(data[at : hit.start])
            if edit.replacement is not None:
                parts.append(edit.replacement)
                at = hit.end
            else:
                at = chunk.buffer.find(b"\n", hit.end, chunk.end) + 1 or chunk.end
        if parts:
            # In one piece again, in memory that is used again: compressors are slow with little at a time.
            changed.seek(0)
            changed.writelines([*parts, data[at:]])
            data = changed.getbuffer()[: changed.tell()]
        yield bool(parts), data, chunk.end
        data.release()
