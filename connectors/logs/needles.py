"""Looking for thousands of byte strings at once, at memory speed.

Hyperscan's literal matcher was measured against ``ahocorasick_rs`` (3 to 5 times slower), ``pyahocorasick`` (15 times)
and the standard library's ``re`` (hopeless) with a thousand e-mail addresses: docs/design.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import Final

import hyperscan

__all__ = ["Needles", "telling"]

LONGEST: Final = 64
"""Bytes of a needle that are looked for; a longer one is cut."""
TAIL: Final = 8
"""Bytes at the end of a needle that Hyperscan looks at second: they should tell the needles apart."""
GLANCE: Final = 3
"""Bytes at the end of a needle that it looks at first, everywhere: the fewer there are, the better."""
SAMPLE: Final = 100
"""Needles, about, that tell what most have in common."""
FEW: Final = 8
"""Needles that have nothing in common yet."""


def telling(needles: Iterable[bytes]) -> set[bytes]:
    """The needles, each cut short where its end is one that fewest others have.

    A thousand addresses at one domain would otherwise end alike, and every line with that domain would be looked at
    twice. A part of a needle finds whatever the needle finds.
    """
    # The binding takes C strings: what follows a zero byte would be ignored, so the longest part without one is taken.
    whole = {max(needle.split(b"\0"), key=len)[:LONGEST] for needle in needles} - {b""}
    few = sorted(whole)[:: 1 + len(whole) // SAMPLE]
    common, last = (
        Counter(chain.from_iterable({needle[end - n : end] for end in range(n, len(needle) + 1)} for needle in some))
        for n, some in ((TAIL, whole), (GLANCE, few))
    )
    cut = set[bytes]()
    for needle in whole:
        others = [common[needle[end - TAIL : end]] for end in range(len(needle), TAIL - 1, -1)]
        end = len(needle) - (others.index(min(others)) if others else 0)
        # Of a text that most needles have ("@mail."), its start alone: if they all end in the same few bytes, Hyperscan
        # looks at few places of a line, and is a third faster.
        while (
            end > TAIL
            and last[needle[end - 1 - GLANCE : end - 1]] > max(len(few) / 2, FEW)
            and common[needle[end - 1 - TAIL : end - 1]] <= common[needle[end - TAIL : end]]
        ):
            end -= 1
        cut.add(needle[:end])
    return cut


class Needles:
    """A set of byte strings without line ends, compiled when they are first looked for."""

    def __init__(self, needles: Iterable[bytes], odd: Mapping[bytes, Iterable[bytes]], *, fold: bool) -> None:
        """``odd``: a byte → further needles that hold it; ``fold``: ASCII letters in any case.

        Odd needles are short, and would halve the speed: they are looked for only in chunks that hold their byte.
        """
        self._needles, self._odd, self._fold = frozenset(needles), odd, fold

    @cached_property
    def _literals(self) -> _Literals:
        return _Literals(self._needles, fold=self._fold)

    @cached_property
    def _with_odd(self) -> _Literals:
        return _Literals(self._needles.union(*self._odd.values()), fold=self._fold)

    def lines(self, buffer: bytearray, size: int) -> Iterator[tuple[int, int]]:
        """The lines of ``buffer[:size]`` with any of the byte strings, in order: start and end, without line end."""
        odd = any(buffer.find(byte, 0, size) >= 0 for byte in self._odd)
        done = -1
        # Hyperscan promises no order among matches; a line's first match may come after one in a later line.
        for end in sorted((self._with_odd if odd else self._literals).ends(memoryview(buffer)[:size])):
            if end <= done:
                continue
            done = buffer.find(b"\n", end, size)
            if done < 0:
                done = size
            yield buffer.rfind(b"\n", 0, end) + 1, done


class _Literals:
    """Hyperscan's compiled form of some byte strings."""

    def __init__(self, needles: Iterable[bytes], *, fold: bool) -> None:
        parts = sorted(telling(needle.lower() for needle in needles) if fold else telling(needles))
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=parts,
            ids=list(range(len(parts))),
            elements=len(parts),
            flags=[hyperscan.HS_FLAG_CASELESS if fold else 0] * len(parts),
            literal=True,
        )
        self._scratch = hyperscan.Scratch(self._database)

    def ends(self, data: memoryview) -> list[int]:
        """Where in the data the byte strings end, in any order."""
        ends = list[int]()

        def found(_id: int, _from: int, to: int, _flags: int, _context: object) -> None:
            ends.append(to)

        self._database.scan(data, match_event_handler=found, scratch=self._scratch)  # type: ignore[type-var] # its stub is narrow
        return ends
