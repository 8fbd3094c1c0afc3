"""The shop's logs: access logs (combined format) and application logs (JSON lines), rotated daily, packed with age.

Lines are put together from ready parts, each made once, so that a million of them take seconds.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

import zstandard

from examples.shop.persons import TODAY, Person
from examples.shop.words import AGENTS, PATHS

__all__ = ["DAYS", "create", "open_log"]

DAYS = 10
"""How many days of each kind of log there are."""
PLAIN_DAYS = 2
"""The newest so many are plain files."""
GZIP_DAYS = 6
"""Up to this age they are gzip files; older ones Zstandard."""
LINES_PER_PERSON = 333
"""On average, over all files: 3,000 people make a million lines."""

CHUNK = 10_000
"""Lines that are joined at once."""
_SHARE_OF_VISITORS = 5
"""One line in so many is of somebody who never signed in."""


def create(directory: Path, persons: Sequence[Person], seed: int, *, lines: int | None = None) -> int:
    """Writes ``access.log.N[.gz|.zst]`` and ``app.jsonl.N[.gz|.zst]``; N = 1 is yesterday. The number of lines.

    ``lines`` is the total over all files; by default, as many as befits the number of people.
    """
    random = Random(f"logs:{seed}")
    total = LINES_PER_PERSON * len(persons) if lines is None else lines
    # Two thirds are accesses, as in any shop.
    per_day = {"access.log": max(1, total * 2 // 3 // DAYS), "app.jsonl": max(1, total // 3 // DAYS)}
    makers = {"access.log": _access_lines(persons, random), "app.jsonl": _app_lines(persons, random)}
    directory.mkdir(parents=True, exist_ok=True)
    for kind, count in per_day.items():
        for age in range(1, DAYS + 1):
            day = TODAY.replace(hour=0) - timedelta(days=age)
            path = directory / f"{kind}.{age}{_suffix(age)}"
            _pack(path, b"".join(makers[kind](day, count)))
            _backdate(path, day + timedelta(days=1), 0o640 if kind == "access.log" else 0o600)
    return sum(per_day.values()) * DAYS


def _suffix(age: int) -> str:
    return "" if age <= PLAIN_DAYS else ".gz" if age <= GZIP_DAYS else ".zst"


def _pack(path: Path, content: bytes) -> None:
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)
    elif path.suffix == ".zst":
        content = zstandard.ZstdCompressor(level=1).compress(content)
    path.write_bytes(content)


def _backdate(path: Path, rotated: datetime, mode: int) -> None:
    path.chmod(mode)
    os.utime(path, (rotated.timestamp(), rotated.timestamp()))


def open_log(path: Path) -> Iterator[bytes]:
    """The lines of one log file, packed or not, each with its line end."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            yield from stream
    elif path.suffix == ".zst":
        with (
            path.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as raw,
        ):
            yield from _lines(raw.read)
    else:
        with path.open("rb") as stream:
            yield from stream


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := read(1 << 20):
        *whole, rest = (rest + chunk).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            whole.append(rest)
            rest = b""
        yield from whole
    if rest:
        yield rest


_Maker = Callable[[datetime, int], Iterator[bytes]]


def _times(random: Random, count: int) -> Iterator[int]:
    """Seconds of the day, ascending, evenly jittered: what ``count`` lines of one day are stamped with."""
    step = 86_000 / count
    at = 0.0
    for jitter in random.choices((0.2, 0.6, 1.0, 1.4, 1.8), k=count):
        yield int(at)
        at += step * jitter


def _visitor_ip(random: Random) -> str:
    """An address outside the people's network."""
    return f"198.51.{random.randrange(256)}.{random.randrange(256)}"


def _access_lines(persons: Sequence[Person], random: Random) -> _Maker:
    requests = [
        f'] "GET {path} HTTP/1.1" {status} {random.randrange(300, 60_000)} "{referrer}" "{agent}"\n'
        for agent in AGENTS
        for path in (*PATHS, *(f"/p/{number}" for number in range(1, 20)))
        for status, referrer in ((200, "-"), (200, "https://search.example/"), (304, "https://shop.example/"))
    ]
    signed_in = [f"{person.ip} - {person.user_id} [" for person in persons]
    before_sign_in = [f"{person.ip} - - [" for person in persons]

    def make(day: datetime, count: int) -> Iterator[bytes]:
        visitors = [f"{_visitor_ip(random)} - - [" for _ in range(max(1, len(persons) // _SHARE_OF_VISITORS))]
        # Every person once, then by weight: nobody's log is empty, and most lines are those of somebody signed in.
        who = [*signed_in, *before_sign_in, *visitors, *signed_in, *signed_in]
        yield from _stamped(random, day, count, who, requests, "%d/%b/%Y:", " +0000")

    return make


def _app_lines(persons: Sequence[Person], random: Random) -> _Maker:
    # A field that names the person, each in its own way; and lines about nobody.
    by_user = [f'Z","level":"info","user_id":"{p.user_id}","ip":"{p.ip}"' for p in persons]
    by_email = [f'Z","level":"info","email":"{p.email}"' for p in persons]
    by_device = [f'Z","level":"warning","device_id":"{p.device_ids[0]}"' for p in persons]
    nobody = [f'Z","level":"debug","worker":{number}' for number in range(max(1, len(persons) // 2))]
    who = [*by_user, *by_user, *by_email, *by_device, *nobody]
    events = [
        f',"event":"{event}","milliseconds":{random.randrange(1, 900)},"trace":"{random.getrandbits(64):016x}"}}\n'
        for event in (
            "page.rendered",
            "search.done",
            "cart.changed",
            "mail.queued",
            "login.ok",
            "push.sent",
            "cache.miss",
        )
        for _ in range(60)
    ]

    def make(day: datetime, count: int) -> Iterator[bytes]:
        yield from _stamped(random, day, count, who, events, '{"time":"%Y-%m-%dT', "")

    return make


@cache
def _clock(zone: str) -> tuple[str, ...]:
    """Every second of a day, as it is written."""
    return tuple(f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{zone}" for second in range(86_400))


def _stamped(
    random: Random, day: datetime, count: int, who: Sequence[str], what: Sequence[str], date: str, zone: str
) -> Iterator[bytes]:
    """``count`` lines in time order; a JSON line begins with its time, an access line names the person first."""
    prefix = day.strftime(date)
    clock = _clock(zone)
    lines = zip(_times(random, count), random.choices(who, k=count), random.choices(what, k=count), strict=True)
    json_lines = date.startswith("{")
    batch: list[str] = []
    for second, person, rest in lines:
        at = clock[min(second, 86_399)]
        batch.append(prefix + at + person + rest if json_lines else person + prefix + at + rest)
        if len(batch) == CHUNK:
            yield "".join(batch).encode()
            batch.clear()
    yield "".join(batch).encode()
