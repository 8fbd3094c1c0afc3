"""The check of the log files: read line by line, compared byte for byte and in order.

Of each line a 64-bit keyed hash is remembered (Python's own, whose key lives as long as the process), not the line: a
million lines then take 16 MB. So both looks at the files must be made by the same process.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.shop.check.model import Finding
from examples.shop.logfiles import open_log
from examples.shop.people import Request
from examples.shop.persons import Person

__all__ = ["LogFile", "check", "read"]

SYSTEM = "logs"
NOBODY = -1
ERASED = rb'\1"[erased]"'
"""What stands in place of an erased person's fields in an application log."""

_WHO = re.compile(rb'"(?:user_id|email|device_id)":"([^"]*)"')
_PERSONAL = re.compile(rb'("(?:user_id|email|device_id|ip)":)"[^"]*"')


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file at one time."""

    mode: int
    modified_ns: int
    owners: array[int]
    """Line → number of the person it belongs to, or ``NOBODY``."""
    lines: array[int]
    """Line → hash."""
    redacted: array[int] | None
    """Line → hash of what it should become when its person is erased; ``None``: it should go."""


def _owner_finder(path: Path, persons: Sequence[Person]) -> Callable[[bytes], int]:
    if path.name.startswith("access.log"):
        by_user = {person.user_id.encode(): person.number for person in persons}
        by_address = {person.ip.encode(): person.number for person in persons}

        def of_access(line: bytes) -> int:
            address, _, user, _ = line.split(b" ", 3)
            return by_user.get(user, NOBODY) if user != b"-" else by_address.get(address, NOBODY)

        return of_access
    by_value = {
        value.encode(): person.number
        for person in persons
        for value in (person.user_id, person.email, *person.device_ids)
    }

    def of_app(line: bytes) -> int:
        named = _WHO.search(line)
        return by_value.get(named[1], NOBODY) if named else NOBODY

    return of_app


def _log_files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.iterdir() if not path.name.startswith("."))


def _own_files(directory: Path, persons: Sequence[Person], erased: set[int]) -> Iterator[Finding]:
    """What whoever rewrote the logs left beside them (a lock, a journal) must not name the erased."""
    for path in directory.glob(".*"):
        content = path.read_bytes()
        for person in (persons[number] for number in erased):
            names = (person.user_id, person.email, person.ip, *person.device_ids)
            if any(re.search(rb"(?<![\w.])" + re.escape(name.encode()) + rb"(?![\w.])", content) for name in names):
                yield Finding(SYSTEM, person.user_id, f"the hidden file {path.name} names them")


def read(directory: Path, persons: Sequence[Person]) -> dict[str, LogFile]:
    """Every file of the directory, by name."""
    files: dict[str, LogFile] = {}
    for path in sorted(_log_files(directory)):
        owner_of = _owner_finder(path, persons)
        about = path.stat()
        owners, lines = array("i"), array("q")
        redacted = None if path.name.startswith("access.log") else array("q")
        for line in open_log(path):
            owner = owner_of(line)
            owners.append(owner)
            lines.append(hash(line))
            if redacted is not None:
                redacted.append(hash(line if owner == NOBODY else _PERSONAL.sub(ERASED, line)))
        files[path.name] = LogFile(stat.S_IMODE(about.st_mode), about.st_mtime_ns, owners, lines, redacted)
    return files


def check(
    before: Mapping[str, LogFile], directory: Path, persons: Sequence[Person], requests: Sequence[Request]
) -> Iterator[Finding]:
    """Every line, and every file's mode and time, that is not as the requests ask."""
    erased = {request.person.number for request in requests if request.right == "erasure"}
    yield from _own_files(directory, persons, erased)
    after = {path.name: path for path in _log_files(directory)}
    for name in sorted(after.keys() - before.keys()):
        yield Finding(SYSTEM, "", f"the file {name} is new")
    for name, was in before.items():
        path = after.get(name)
        if path is None:
            yield Finding(SYSTEM, "", f"the file {name} is missing")
            continue
        about = path.stat()
        if stat.S_IMODE(about.st_mode) != was.mode:
            yield Finding(SYSTEM, "", f"the mode of {name} was changed")
        if about.st_mtime_ns != was.modified_ns:
            yield Finding(SYSTEM, "", f"the modification time of {name} was changed")
        now = array("q", map(hash, open_log(path)))
        wanted = _wanted(was, erased)
        if now != wanted:
            yield from _differences(name, was, now, persons, erased)


def _wanted(was: LogFile, erased: set[int]) -> array[int]:
    if was.redacted is None:
        return array("q", (line for line, owner in zip(was.lines, was.owners, strict=True) if owner not in erased))
    lines = zip(was.lines, was.redacted, was.owners, strict=True)
    return array("q", (redacted if owner in erased else line for line, redacted, owner in lines))


def _differences(
    name: str, was: LogFile, now: array[int], persons: Sequence[Person], erased: set[int]
) -> Iterator[Finding]:
    """What is wrong with a file that is not as it should be, by person."""

    def who(number: int) -> str:
        return "" if number == NOBODY else persons[number].user_id

    left = Counter(now)
    wrong: Counter[tuple[int, str]] = Counter()
    redacted = was.redacted or was.lines
    for line, redaction, owner in zip(was.lines, redacted, was.owners, strict=True):
        if owner in erased:
            if left[line] > 0:
                left[line] -= 1
                wrong[owner, "is still there and should be gone"] += 1
            elif was.redacted is not None:
                wrong[owner, "is missing and should be redacted"] += left[redaction] <= 0
                left[redaction] -= 1
        else:
            wrong[owner, "is missing or was changed"] += left[line] <= 0
            left[line] -= 1
    wrong[NOBODY, "is new"] += sum(count for count in left.values() if count > 0)
    found = [
        Finding(SYSTEM, who(owner), f"{count} × a line of {name} {what}")
        for (owner, what), count in wrong.items()
        if count
    ]
    yield from found or [Finding(SYSTEM, "", f"the lines of {name} are in another order")]
