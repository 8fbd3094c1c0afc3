"""The log files that are searched, and the people who are looked for in them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import zstandard

SUFFIXES = {"plain": "", "gzip": ".gz", "zstd": ".zst"}
POPULATION = 200_000
"""People whose addresses occur in the logs."""
ACTIVE = POPULATION // 5
"""Of whom so many occur in each file: somebody who is looked for is in some files and not in others."""
FIRST = ("ada", "alan", "grace", "edsger", "barbara", "donald", "margaret", "linus", "radia", "ken", "dennis", "john")
LAST = ("lovelace", "turing", "hopper", "dijkstra", "liskov", "knuth", "hamilton", "torvalds", "perlman", "allen")
LINE = (
    '{"at": "2026-10-%02dT%02d:%02d:%02d.%03dZ", "level": "info", "user_id": %d, "email": "%s", '
    '"client": {"ip": "10.%d.%d.%d"}, "message": "request handled", "path": "/shop/items/%d", "ms": %d}\n'
)


@dataclass(frozen=True)
class Size:
    """How much there is to search."""

    files: int
    """In each of the three compressions."""
    bytes: int
    """In each file, before compression."""

    @property
    def of_a_kind(self) -> int:
        """Bytes in all files of one compression, before compression."""
        return self.files * self.bytes


def email(person: int) -> str:
    """A person's address: no address is a part of another, so that a program without fields finds the same lines."""
    return f"{FIRST[person % 12]}.{LAST[person // 12 % 10]}{person:06d}@mail{person % 50}.example"


def active(file: int) -> list[int]:
    """Who occurs in a file."""
    return random.Random(file).sample(range(POPULATION), ACTIVE)


def generate(root: Path, size: Size) -> None:
    """Write ``app.N.jsonl``, and the same compressed as ``gzip -6`` and ``zstd -3`` do."""
    root.mkdir()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_write, [root] * size.files, range(size.files), [size.bytes] * size.files))


def _write(root: Path, number: int, size: int) -> None:
    gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
    zstd = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    people = [(person, email(person)) for person in active(number)]
    chance, held, path = random.Random(f"lines {number}").random, 0, root / f"app.{number}.jsonl"
    with (
        path.open("wb") as plain,
        path.with_suffix(".jsonl.gz").open("wb") as zipped,
        path.with_suffix(".jsonl.zst").open("wb") as packed,
    ):
        while held < size:
            data = "".join(_line(chance, people, number) for _ in range(5000)).encode()
            plain.write(data)
            zipped.write(gzip.compress(data))
            packed.write(zstd.compress(data))
            held += len(data)
        zipped.write(gzip.flush())
        packed.write(zstd.flush())


def _line(chance: Callable[[], float], people: list[tuple[int, str]], day: int) -> str:
    person, address = people[int(chance() * ACTIVE)]
    bits = int(chance() * (1 << 53))
    time = (1 + day % 28, bits & 15, bits >> 4 & 31, bits >> 9 & 31, bits >> 14 & 511)
    ip = (bits >> 23 & 255, bits >> 31 & 255, bits >> 39 & 255)
    return LINE % (*time, person, address, *ip, bits >> 10 & 0xFFFFF, bits >> 43)
