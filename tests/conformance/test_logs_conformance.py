"""The logs connector keeps the contract's laws, removing lines and redacting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.conformance import ConnectorConformance, World
from connectors.contract import Identity
from connectors.logs import Logs
from tests.support.log_files import COMBINED_SOURCE, JSON_SOURCE, logs, pack, unpack

PEOPLE = {"person": "u-ada", "other": "u-bob", "third": "u-eve"}
ADDRESSES = {"u-ada": "192.0.2.11", "u-bob": "192.0.2.12", "u-eve": "192.0.2.13"}
SUFFIXES = ("", ".1.gz", ".2.zst")


def json_line(user: str, n: int) -> str:
    return (
        f'{{"at": {n}, "user_id": "{user}", "email": "{user}@x.example", '
        f'"client": {{"ip": "{ADDRESSES[user]}"}}, "message": "said {n}"}}\n'
    )


def access_line(user: str, n: int) -> str:
    return f'{ADDRESSES[user]} - {user} [10/Oct/2026:13:55:{n:02} +0200] "GET /{n} HTTP/1.1" 200 12 "-" "Browser"\n'


def write(root: Path) -> None:
    for suffix in SUFFIXES:
        lines = [(user, n) for n in range(4) for user in PEOPLE.values()]
        pack(root / f"app.jsonl{suffix}", "".join(json_line(*line) for line in lines).encode())
        pack(root / f"access.log{suffix}", "".join(access_line(*line) for line in lines).encode())


def snapshot(root: Path) -> dict[str, object]:
    """Whose lines are where, as the files hold them."""
    found: dict[str, list[tuple[str, bytes]]] = {label: [] for label in PEOPLE}
    for path in sorted(p for p in root.iterdir() if p.name.startswith(("app.", "access."))):
        for line in unpack(path).splitlines():
            for label, user in PEOPLE.items():
                if user.encode() in line:
                    found[label].append((path.name, line))
    return dict(found)


def identities(user: str) -> tuple[Identity, ...]:
    return Identity("user_id", user), Identity("email", f"{user}@x.example")


class LogsConformance(ConnectorConformance):
    on_erase = ""

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        write(tmp_path)
        sources: list[dict[str, Any]] = [
            {**source, "on_erase": self.on_erase} for source in (JSON_SOURCE, COMBINED_SOURCE)
        ]
        return World(
            connector=logs(tmp_path, *sources, discover=["ip"]),
            person=identities(PEOPLE["person"]),
            other=identities(PEOPLE["other"]),
            stranger=identities("u-zoe"),
            snapshot=lambda: snapshot(tmp_path),
            unreachable=logs(tmp_path / "nowhere", *sources, discover=["ip"]),
        )


class TestRemovedLogsConformance(LogsConformance):
    actions = Logs.actions()
    on_erase = "remove"


class TestRedactedLogsConformance(LogsConformance):
    actions = Logs.actions()
    on_erase = "redact"
