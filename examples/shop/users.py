"""The shop's own database (PostgreSQL): made, filled with ``COPY``, and the same for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

import psycopg
from psycopg import sql

from examples.shop.persons import TODAY, Person, chance, moment, token
from examples.shop.words import (
    AGENTS,
    CITIES_NEARBY,
    JOBS,
    MODELS,
    PARTNERS,
    PRODUCTS,
    QUERIES,
    sentence,
)

__all__ = ["PURPOSES", "TABLES", "create", "driver_url", "make_rows"]

Row = tuple[object, ...]

PURPOSES = ("marketing", "analytics", "personalisation", "advertising")
"""What the shop asks consent for."""

TABLES = (
    "products",
    "accounts",
    "profiles",
    "addresses",
    "social_logins",
    "payment_methods",
    "files",
    "posts",
    "comments",
    "messages",
    "emails_sent",
    "support_tickets",
    "ticket_replies",
    "devices",
    "sessions",
    "search_queries",
    "consents",
    "cookies",
    "partner_data",
    "orders",
    "order_items",
)
"""Every table, parents before children."""


@dataclass
class _Rows:
    """The rows of every table so far, and the numbers that the next ones get."""

    random: Random
    customers: Mapping[str, str]
    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in TABLES})
    numbers: dict[str, itertools.count[int]] = field(default_factory=lambda: {t: itertools.count(1) for t in TABLES})

    def add(self, table: str, *values: object) -> None:
        self.rows[table].append(values)

    def number(self, table: str, *values: object) -> int:
        """Adds a row under the table's next number, and gives that number."""
        number = next(self.numbers[table])
        self.rows[table].append((number, *values))
        return number


def make_rows(persons: Sequence[Person], seed: int, customers: Mapping[str, str]) -> dict[str, list[Row]]:
    """Every table's rows, in the order of its columns. ``customers``: user id → Stripe customer id."""
    made = _Rows(Random(f"users:{seed}"), customers)
    for name in PRODUCTS:
        made.number("products", name, made.random.randrange(500, 20_000, 10))
    for person in persons:
        for part in _PARTS:
            part(made, person)
    _conversations(made, persons)
    return made.rows


def _account(made: _Rows, person: Person) -> None:
    random = made.random
    restricted = hidden = False
    made.add(
        "accounts",
        person.user_id,
        person.email,
        person.phone,
        person.username,
        f"$argon2id${token(random, 32)}",
        made.customers.get(person.user_id),
        person.joined,
        moment(random, person.joined),
        restricted,
        None,
    )
    made.add(
        "profiles",
        person.user_id,
        person.first_name,
        person.last_name,
        person.name,
        person.born,
        random.choice(("f", "m", "x", None)),
        person.language,
        random.choice(JOBS),
        sentence(random, 9) if chance(random, 0.6) else None,
        hidden,
    )
    home = person.address
    for kind in ("billing", "shipping")[: random.choice((1, 1, 2))]:
        made.number(
            "addresses", person.user_id, kind, person.name, home.street, home.postal_code, home.city, home.country
        )


def _sign_in(made: _Rows, person: Person) -> None:
    random = made.random
    for device_id in person.device_ids:
        model, system = random.choice(MODELS)
        seen = moment(random, person.joined)
        made.add("devices", device_id, person.user_id, model, system, f"push_{token(random, 24)}", seen)
        for _ in range(random.choice((1, 2, 2))):
            made.number(
                "sessions",
                person.user_id,
                device_id,
                person.ip,
                random.choice(AGENTS),
                CITIES_NEARBY[person.address.country],
                moment(random, seen),
            )
    if chance(random, 0.3):
        provider = random.choice(("friendbook", "gaggle"))
        subject = token(random, 16)
        made.add(
            "social_logins",
            provider,
            subject,
            person.user_id,
            person.email,
            f"https://{provider}.example/{person.username}",
            moment(random, person.joined),
        )


def _content(made: _Rows, person: Person) -> None:
    random = made.random
    files = [
        made.number(
            "files",
            person.user_id,
            f"{random.choice(('photo', 'room', 'receipt'))}-{number}.jpg",
            "image/jpeg",
            random.randrange(20_000, 4_000_000),
            f"uploads/{token(random, 24)}",
            moment(random, person.joined),
        )
        for number in range(random.choice((0, 1, 1, 2)))
    ]
    for _ in range(random.choice((0, 1, 2, 4))):
        cover = random.choice(files) if files and chance(random, 0.5) else None
        made.number(
            "posts",
            person.user_id,
            cover,
            sentence(random, 4),
            sentence(random, 18),
            moment(random, person.joined),
        )
    for _ in range(random.choice((0, 1, 3, 5))):
        made.number(
            "search_queries",
            person.user_id,
            random.choice(QUERIES),
            random.randrange(90),
            moment(random, person.joined),
        )


def _communication(made: _Rows, person: Person) -> None:
    random = made.random
    for _ in range(random.choice((1, 2, 3))):
        template = random.choice(("welcome", "order shipped", "newsletter", "password reset"))
        made.number(
            "emails_sent", person.user_id, template, person.email, moment(random, person.joined), chance(random, 0.5)
        )
    if chance(random, 0.3):
        ticket = made.number(
            "support_tickets",
            person.user_id,
            random.choice(("e-mail", "chat", "phone")),
            sentence(random, 5),
            random.choice(("open", "solved")),
            moment(random, person.joined),
        )
        for line in range(1, random.randint(2, 4)):
            made.add("ticket_replies", ticket, line, line % 2 == 1, sentence(random, 12))


def _choices(made: _Rows, person: Person) -> None:
    random = made.random
    for purpose in PURPOSES:
        made.number(
            "consents",
            person.user_id,
            purpose,
            chance(random, 0.75),
            random.choice(("sign-up", "cookie banner", "settings")),
            moment(random, person.joined),
        )
    made.add("cookies", person.cookie_id, person.user_id, chance(random, 0.1), moment(random, person.joined))
    for partner, kind, values in PARTNERS:
        if chance(random, 0.3):
            made.number(
                "partner_data", person.user_id, partner, kind, random.choice(values), moment(random, person.joined)
            )


def _orders(made: _Rows, person: Person) -> None:
    random = made.random
    customer = made.customers.get(person.user_id)
    if customer or chance(random, 0.3):
        made.number("payment_methods", person.user_id, "stripe" if customer else "paypal", "visa", "4242", "2029-08")
    home = person.address
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        lines = [
            (line, random.randrange(1, len(PRODUCTS) + 1), random.randint(1, 3), random.randrange(500, 20_000, 10))
            for line in range(1, random.randint(2, 5))
        ]
        order = made.number(
            "orders",
            person.user_id,
            person.name,
            home.street,
            home.postal_code,
            home.city,
            home.country,
            "EUR",
            sum(quantity * price for _, _, quantity, price in lines),
            moment(random, person.joined),
        )
        for line, product, quantity, price in lines:
            made.add("order_items", order, line, product, quantity, price)


def _conversations(made: _Rows, persons: Sequence[Person]) -> None:
    """Comments under anybody's posts, answers to anybody's comments, and messages between any two."""
    random = made.random
    posts = len(made.rows["posts"])
    for number in range(len(persons) * 3):
        author = random.choice(persons)
        parent = random.randint(1, number) if number and chance(random, 0.4) else None
        post = made.rows["comments"][parent - 1][1] if parent else random.randint(1, posts)
        written = moment(random, TODAY - timedelta(days=400))
        made.number("comments", post, parent, author.user_id, sentence(random, 10), written)
    for _ in range(len(persons) * 2):
        sender, recipient = random.sample(persons, 2)
        sent = moment(random, TODAY - timedelta(days=400))
        made.number("messages", sender.user_id, recipient.user_id, sentence(random, 12), sent)


_PARTS: tuple[Callable[[_Rows, Person], None], ...] = (
    _account,
    _sign_in,
    _content,
    _communication,
    _choices,
    _orders,
)


def driver_url(url: str) -> str:
    """A SQLAlchemy URL as libpq takes it: without the driver's name."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


def create(url: str, persons: Sequence[Person], seed: int, customers: Mapping[str, str]) -> int:
    """Makes all tables in an empty database and fills them, in one transaction; the number of rows.

    ``url``: of the database, with or without SQLAlchemy's driver name.
    """
    here = Path(__file__).parent
    rows = make_rows(persons, seed, customers)
    with psycopg.connect(driver_url(url)) as connection, connection.cursor() as cursor:
        cursor.execute((here / "users.sql").read_bytes())
        for table in TABLES:
            with cursor.copy(sql.SQL("copy {} from stdin").format(sql.Identifier(table))) as copy:
                for row in rows[table]:
                    copy.write_row(row)
        cursor.execute((here / "users_index.sql").read_bytes())
    return sum(map(len, rows.values()))
