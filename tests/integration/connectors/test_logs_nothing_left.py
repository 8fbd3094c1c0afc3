"""After erasure ``grep`` finds nothing of the erased: the demo shop's logs, in every format, compression and age."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.contract import Done, Pending, Task
from connectors.logs import Logs, LogsConfig
from examples.shop import logfiles
from examples.shop.check import logs as shop_check
from examples.shop.people import Request, cast
from examples.shop.persons import Person, make_persons
from examples.shop.world import SYSTEMS
from tests.support.log_files import logs, pack, run, task, unpack

pytestmark = pytest.mark.usefixtures("wherever")

PEOPLE = make_persons(11, 500)
ERASED = [request.person for request in cast(PEOPLE, 11, 300).requests]
BATCHES = 3

REGEX_SOURCE: Mapping[str, Any] = {
    "name": "worker",
    "files": "worker.log*",
    "live": "worker.log",
    "format": "regex",
    "pattern": r"\S+ (?:user=(?P<user_id>\S+) )?(?:mail=<(?P<email>[^>]+)> )?(?:from (?P<ip>\S+) )?(?P<text>.*)",
    "fields": {"user_id": {"identity": "user_id"}, "email": {"identity": "email"}, "ip": {"identity": "ip"}},
    "on_erase": "redact",
}
JSON_SOURCE: Mapping[str, Any] = {
    "name": "api",
    "files": "api.jsonl*",
    "live": "api.jsonl",
    "format": "jsonl",
    "fields": {
        "user.id": {"identity": "user_id"},
        "user.email": {"identity": "email"},
        "device_id": {"identity": "device_id"},
        "ip": {"identity": "ip"},
    },
    "on_erase": "redact",
}
SUFFIXES = ("", ".1", ".2.gz", ".3.zst")


def values(person: Person) -> tuple[str, ...]:
    return person.user_id, person.email, person.ip, *person.device_ids


def everything(key: str, person: Person, *, spelt: str = "lower") -> Task:
    """One person's task with all their identities, as discovery in the other systems gives them."""
    found = task(key, user_id=person.user_id, email=getattr(person.email, spelt)(), ip=person.ip)
    devices = task(key, device_id=person.device_ids[0]).identities
    more = tuple(i for value in person.device_ids[1:] for i in task(key, device_id=value).identities)
    return Task(key, found.action, (*found.identities, *devices, *more))


def in_batches(people: Sequence[Person]) -> Iterator[list[Task]]:
    for start in range(BATCHES):
        yield [
            everything(f"r{p.number}/1", p, spelt="upper" if p.number % 3 else "lower") for p in people[start::BATCHES]
        ]


def grep(root: Path, people: Sequence[Person], scratch: Path) -> list[bytes]:
    """The lines in which grep finds any value of these people, as whole words, in any case."""
    scratch.mkdir(exist_ok=True)
    patterns = scratch / "patterns"
    patterns.write_text("".join(f"{value}\n" for person in people for value in values(person)))
    found = []
    for path in sorted(root.iterdir()):
        if path.is_dir():
            continue
        plain = scratch / "plain"
        plain.write_bytes(unpack(path).lower())
        command = ["grep", "-a", "-w", "-F", "-f", str(patterns), str(plain)]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=False)
        assert done.returncode in (0, 1), done.stderr
        found += [path.name.encode() + b": " + line for line in done.stdout.splitlines()]
    return found


def shop_connector(root: Path) -> Logs:
    """The demo's own settings."""
    [system] = [s for s in yaml.safe_load(SYSTEMS.read_text())["systems"] if s["name"] == "logs"]
    return Logs("logs", LogsConfig.model_validate({**system["config"], "root": root}))


def test_nothing_of_the_erased_is_left_in_the_shops_logs_and_all_else_is(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    logfiles.create(root, PEOPLE, 11, lines=60_000)
    before = shop_check.read(root, PEOPLE)
    assert len(grep(root, ERASED, tmp_path / "scratch")) > 10_000
    counted = 0
    for batch in in_batches(ERASED):
        for result in run(shop_connector(root), batch).values():
            assert isinstance(result, Done)
            counted += sum(result.counts.values())
    assert counted > 10_000
    assert grep(root, ERASED, tmp_path / "scratch") == []
    requests = [Request(f"r{p.number}", "erasure", p, ()) for p in ERASED]
    assert list(shop_check.check(before, root, PEOPLE, requests)) == []


def worker_line(n: int, person: Person) -> str:
    who = (f"user={person.user_id} ", f"mail=<{person.email.title()}> ", f"user={person.user_id} from {person.ip} ", "")
    return f"2026-11-01T{n % 24:02d} {who[n % 4]}job {n} done in {n % 977} ms\n"


def api_line(n: int, person: Person) -> str:
    device = person.device_ids[n % len(person.device_ids)]
    return (
        f'{{"at":{n},"user":{{"id":"{person.user_id}","email":"{person.email}"}},"ms":{n % 977}}}\n',
        f'{{"at": {n}, "ms": {n % 977}.5e-1, "device_id" : "{device}", "ok": true}}\n',
        f'{{"ip":"{person.ip}","user":{{"roles":["a"],"email":"{person.email.upper()}"}},"at":{n}}}\n',
        f'{{"at":{n},"http":{{"path":"/a/{n}","status":200}},"user":{{"plan":null,"id":"{person.user_id}"}}}}\n',
    )[n % 4]


@pytest.mark.parametrize(
    ("source", "make"), [(REGEX_SOURCE, worker_line), (JSON_SOURCE, api_line)], ids=["regex", "jsonl"]
)
def test_nothing_is_left_in_files_that_were_live_once_they_are_rotated(
    tmp_path: Path, source: Mapping[str, Any], make: Any
) -> None:
    root = tmp_path / "logs"
    root.mkdir()
    name = str(source["files"]).removesuffix("*")
    contents = {}
    for age, suffix in enumerate(SUFFIXES):
        # Everybody is in some files only; each is several chunks long.
        lines = [make(n, PEOPLE[(7 * n + age) % len(PEOPLE)]) for n in range(9000)]
        contents[suffix] = "".join(lines).encode()
        pack(root / f"{name}{suffix}", contents[suffix], parts=2)
    connector = logs(
        root, source, identities=["user_id", "email", "ip", *({"device_id"} & set(str(source).split("'")))]
    )
    waiting = [r for batch in in_batches(ERASED) for r in run(connector, batch).values() if isinstance(r, Pending)]
    assert waiting
    left = grep(root, ERASED, tmp_path / "scratch")
    assert left
    assert {line.split(b":")[0] for line in left} == {name.encode()}
    (root / name).rename(root / f"{name}.4")
    for batch in in_batches(ERASED):
        assert all(isinstance(result, Done) for result in run(connector, batch).values())
    assert grep(root, ERASED, tmp_path / "scratch") == []
    theirs = {value.encode() for person in ERASED for value in values(person)}
    for suffix, content in contents.items():
        now = unpack(root / f"{name}{suffix or '.4'}")
        for old, new in zip(content.splitlines(), now.splitlines(), strict=True):
            of_others = theirs.isdisjoint(re.findall(rb"[\w.@-]+", old.lower()))
            assert (new == old) if of_others else (new != old and b"[erased]" in new)
