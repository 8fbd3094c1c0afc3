"""Looking for thousands of byte strings at once, at memory speed.

Hyperscan's literal matcher was measured against ``ahocorasick_rs`` (3 to 5 times slower), ``pyahocorasick`` (15 times)
and the standard library's ``re`` (hopeless) with a thousand e-mail addresses: docs/design.md.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import hyperscan

__all__ = ["Needles", "telling"]

LONGEST: Final = 64
"""Bytes of a needle that are looked for; a longer one is cut."""
TAIL: Final = 8
"""Bytes at the end of a needle that Hyperscan looks at first: they should tell the needles apart."""


def telling(needles: Iterable[bytes]) -> set[bytes]:
    """The needles, each cut short where its end is one that fewest others have.

    A thousand addresses at one domain would otherwise end alike, and every line with that domain would be looked at
    twice. A part of a needle finds whatever the needle finds.
    """
    # The binding takes C strings: what follows a zero byte would be ignored, so the longest part without one is taken.
    whole = {max(needle.split(b"\0"), key=len)[:LONGEST] for needle in needles} - {b""}
    common = Counter(needle[end - TAIL : end] for needle in whole for end in range(TAIL, len(needle) + 1))
    cut = set[bytes]()
    for needle in whole:
        ends = range(len(needle), TAIL - 1, -1)
        end = min(ends, key=lambda end: common[needle[end - TAIL : end]], default=len(needle))
        cut.add(needle[:end])
    return cut


class Needles:
    """A set of byte strings without line ends, compiled. Safe to share between threads."""

    def __init__(self, needles: Iterable[bytes], *, fold: bool) -> None:
        """``fold``: ASCII letters in any case."""
        parts = sorted(telling(needle.lower() for needle in needles) if fold else telling(needles))
        flags = hyperscan.HS_FLAG_CASELESS if fold else 0
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=parts,
            ids=list(range(len(parts))),
            elements=len(parts),
            flags=[flags] * len(parts),
            literal=True,
        )
        self._threads = threading.local()

    def lines(self, chunk: bytes) -> Iterator[tuple[int, int]]:
        """The lines of a chunk with any of the byte strings, in order: ``chunk[start:end]``, without line end."""
        ends = list[int]()

        def found(_id: int, _from: int, to: int, _flags: int, _context: object) -> None:
            ends.append(to)

        self._database.scan(chunk, match_event_handler=found, scratch=self._scratch())
        done = -1
        for end in ends:
            if end <= done:
                continue
            done = chunk.find(b"\n", end)
            if done < 0:
                done = len(chunk)
            yield chunk.rfind(b"\n", 0, end) + 1, done

    def _scratch(self) -> hyperscan.Scratch:
        """Hyperscan's working memory, one for each thread."""
        scratch: hyperscan.Scratch | None = getattr(self._threads, "scratch", None)
        if scratch is None:
            scratch = self._threads.scratch = hyperscan.Scratch(self._database)
        return scratch
