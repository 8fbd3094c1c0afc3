"""The shop's customers: who they are, before any system knows them. Same seed, same people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random

from examples.shop.words import FIRST_NAMES, LAST_NAMES, STREETS

__all__ = ["TODAY", "Address", "Person", "chance", "make_persons", "moment", "token"]

TODAY = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)
"""The shop's fixed present: everything in it happened before. Fixed, so that the same seed gives the same bytes."""

_CITIES = (
    ("Berlin", "10115", "DE"),
    ("Hamburg", "20095", "DE"),
    ("München", "80331", "DE"),
    ("Köln", "50667", "DE"),
    ("Leipzig", "04109", "DE"),
    ("Wien", "1010", "AT"),
    ("Graz", "8010", "AT"),
    ("Zürich", "8001", "CH"),
    ("Utrecht", "3511", "NL"),
    ("Lyon", "69001", "FR"),
)
_LANGUAGES = {"DE": "de", "AT": "de", "CH": "de", "NL": "nl", "FR": "fr"}


@dataclass(frozen=True, slots=True)
class Address:
    """A postal address."""

    street: str
    postal_code: str
    city: str
    country: str
    """ISO 3166-1 alpha-2."""


@dataclass(frozen=True, slots=True)
class Person:
    """One customer, with every identifier that any of the shop's systems uses for them."""

    number: int
    """Position in the shop, from 0."""
    user_id: str
    email: str
    username: str
    first_name: str
    last_name: str
    phone: str
    born: date
    language: str
    address: Address
    ip: str
    """The address their connection has; nobody else's."""
    device_ids: tuple[str, ...]
    cookie_id: str
    """The analytics cookie: the person's pseudonym in the event warehouse."""
    joined: datetime

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"


def token(random: Random, length: int) -> str:
    """Random lower-case hexadecimal digits."""
    return f"{random.getrandbits(length * 4):0{length}x}"


def chance(random: Random, probability: float) -> bool:
    """True with this probability."""
    return random.random() < probability


def moment(random: Random, after: datetime) -> datetime:
    """Some second between ``after`` and the shop's today."""
    return after + timedelta(seconds=random.randrange(max(1, int((TODAY - after).total_seconds()))))


def _person(random: Random, seed: int, number: int) -> Person:
    first, last = random.choice(FIRST_NAMES), random.choice(LAST_NAMES)
    city, postal_code, country = random.choice(_CITIES)
    # A digest rather than the number itself: an id is then never part of another one, in a log line for instance.
    unique = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
    return Person(
        number=number,
        user_id=f"usr_{unique[:12]}",
        email=f"{first}.{last}.{number}@mail.example".lower(),
        username=f"{first}{last[0]}{number}".lower(),
        first_name=first,
        last_name=last,
        phone=f"+4930{5_000_000 + number:07d}",
        born=date(1950, 1, 1) + timedelta(days=random.randrange(20_000)),
        language=_LANGUAGES[country],
        address=Address(f"{random.choice(STREETS)} {random.randint(1, 140)}", postal_code, city, country),
        # 10.0.0.0/8 holds 16 million people; visitors who never signed in have addresses elsewhere.
        ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        device_ids=tuple(f"dev_{unique[16 + 12 * n : 28 + 12 * n]}" for n in range(random.choice((1, 1, 1, 2, 2, 3)))),
        cookie_id=f"anon_{unique[52:64]}",
        joined=TODAY - timedelta(days=random.randint(30, 1400), seconds=random.randrange(86_400)),
    )


def make_persons(seed: int, count: int) -> tuple[Person, ...]:
    """``count`` people; the same for the same seed and count."""
    random = Random(f"persons:{seed}")
    return tuple(_person(random, seed, number) for number in range(count))
