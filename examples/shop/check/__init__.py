"""The check made directly in the shop's four systems: with its own SQL, HTTP and file reading, not through Habeas.

``snapshot`` before the requests are carried out, ``check`` afterwards, in the same process.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from examples.shop.check import analytics, logs, payments, users
from examples.shop.check.model import Finding, Table
from examples.shop.people import Request
from examples.shop.world import Shop

__all__ = ["Finding", "Snapshot", "check", "snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything in the four systems at one time, with whose it is."""

    users: Mapping[str, Table]
    analytics: Mapping[str, Table]
    payments: payments.Payments
    logs: Mapping[str, logs.LogFile]
    persons: Sequence[str]
    """User ids, by the people's numbers."""

    def digests(self) -> Mapping[str, Mapping[str, str]]:
        """User id (empty: what is nobody's) → system → digest of everything that belongs to them there.

        A digest of log lines can be compared within one process only.
        """
        digests: dict[str, dict[str, str]] = defaultdict(dict)
        for system, tables in (("users", self.users), ("analytics", self.analytics)):
            for person, digest in _of_tables(tables).items():
                digests[person][system] = digest
        for person, digest in _of_logs(self.logs, self.persons).items():
            digests[person]["logs"] = digest
        for customer, person in self.payments.users.items():
            digests[person]["payments"] = _digest(repr(item) for item in _of_customer(self.payments, customer))
        return digests


def _digest(parts: Iterator[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _of_tables(tables: Mapping[str, Table]) -> dict[str, str]:
    rows: dict[str, list[str]] = defaultdict(list)
    for table in tables.values():
        for key, row in table.rows.items():
            rows[table.owners.get(key, "")].append(f"{table.name}{row!r}")
    return {person: _digest(iter(sorted(theirs))) for person, theirs in rows.items()}


def _of_logs(files: Mapping[str, logs.LogFile], persons: Sequence[str]) -> dict[str, str]:
    lines: dict[int, list[str]] = defaultdict(list)
    for name, file in files.items():
        for line, owner in zip(file.lines, file.owners, strict=True):
            lines[owner].append(f"{name}:{line}")
    return {persons[owner] if owner != logs.NOBODY else "": _digest(iter(theirs)) for owner, theirs in lines.items()}


def _of_customer(account: payments.Payments, customer: str) -> Iterator[object]:
    yield account.customers[customer]
    for items in (account.cards, *account.records.values()):
        yield from (item for item in items.values() if item["customer"] == customer)


def snapshot(systems: Shop) -> Snapshot:
    """Reads all four systems whole."""
    # The servers of two of them work while we read the other two.
    with ThreadPoolExecutor(2) as pool:
        account = pool.submit(payments.read, systems.server.url)
        return Snapshot(
            users=users.read(systems.postgres_url),
            analytics=analytics.read(systems.warehouse),
            logs=logs.read(systems.logs, systems.persons),
            payments=account.result(),
            persons=[person.user_id for person in systems.persons],
        )


def check(before: Snapshot, systems: Shop, requests: Sequence[Request]) -> list[Finding]:
    """Everything that is not as these requests, all carried out, leave it; an empty list is a pass.

    Erased people are gone, but for what tax law keeps; corrected people have their new values; restricted and objecting
    people are as they asked; and nothing else has changed, to the byte.
    """
    return [
        *users.check(before.users, systems.postgres_url, requests),
        *logs.check(before.logs, systems.logs, systems.persons, requests),
        *payments.check(before.payments, systems.server.url, requests),
        *analytics.check(before.analytics, systems.warehouse, requests),
    ]
