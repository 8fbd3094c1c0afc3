"""Which of the shop's people ask for what. Same seed, same requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType

from examples.shop.persons import Address, Person
from examples.shop.users import PURPOSES

__all__ = ["RIGHTS", "Cast", "Request", "cast"]

RIGHTS: Mapping[str, float] = MappingProxyType(
    {"erasure": 0.5, "access": 0.2, "rectification": 0.1, "restriction": 0.07, "objection": 0.07, "portability": 0.06}
)
"""The six rights, and each one's share of the requests."""


@dataclass(frozen=True, slots=True)
class Request:
    """One person's exercise of one right, before it becomes a message."""

    id: str
    right: str
    """One of ``RIGHTS``."""
    person: Person
    """As they were before."""
    identities: tuple[tuple[str, str], ...]
    """(type, value): how the request names the person. Most name an e-mail address or a user id alone."""
    corrections: Mapping[str, str] = field(default_factory=dict)
    """Rectification: Fides data category → new value."""
    corrected: Person | None = None
    """Rectification: the person as they should be afterwards."""
    purposes: frozenset[str] = frozenset()
    """Objection and restriction: what it is about; empty: everything."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who asks, and who does not."""

    requests: tuple[Request, ...]
    """At most one for each person."""
    bystanders: tuple[Person, ...]
    """Everyone else: nothing of theirs may change."""
    customers: tuple[Person, ...]
    """Whom the payment processor knows: all who ask, and some bystanders."""


def cast(persons: Sequence[Person], seed: int, requests: int) -> Cast:
    """Chooses ``requests`` distinct people and what each of them asks for.

    Raises:
        ValueError: there are fewer people than requests.
    """
    if requests > len(persons):
        message = f"{requests} requests need as many people, and the shop has {len(persons)}"
        raise ValueError(message)
    random = Random(f"people:{seed}")
    asking = random.sample(persons, requests)
    earlier: Counter[str] = Counter()
    made = []
    for number, (right, person) in enumerate(zip(_rights(random, requests), asking, strict=True), start=1):
        made.append(_request(random, number, right, earlier[right], person))
        earlier[right] += 1
    names = {person.number for person in asking}
    bystanders = tuple(person for person in persons if person.number not in names)
    customers = (*asking, *bystanders[: max(10, requests // 5)])
    return Cast(tuple(made), bystanders, tuple(sorted(customers, key=lambda person: person.number)))


def _rights(random: Random, count: int) -> list[str]:
    """``count`` rights in these shares, every right at least once as far as the count allows, shuffled."""
    rights = [right for right, share in RIGHTS.items() for _ in range(max(1, round(share * count)))]
    # Rounding leaves too many or too few of them: erasures, the commonest and first, take up the difference.
    rights = rights[max(0, len(rights) - count) :] + ["erasure"] * max(0, count - len(rights))
    random.shuffle(rights)
    return rights


_CORRECTIONS = (("name", "email", "address"), ("name",), ("email",), ("address",))
"""What people have corrected, in turn."""
_PURPOSES = (PURPOSES, ("marketing",), ("marketing", "advertising"), ("analytics",))
"""What people object to, in turn."""


def _request(random: Random, number: int, right: str, earlier: int, person: Person) -> Request:
    """``earlier``: how many requests of the same right there were before this one."""
    identities = random.choice(
        (
            (("email", person.email),),
            (("email", person.email),),
            (("user_id", person.user_id),),
            (("email", person.email), ("user_id", person.user_id)),
        )
    )
    request = Request(f"shop-{number:05d}", right, person, identities)
    if right == "rectification":
        corrected, corrections = _correction(random, person, _CORRECTIONS[earlier % len(_CORRECTIONS)])
        return replace(request, corrected=corrected, corrections=MappingProxyType(corrections))
    if right == "objection":
        return replace(request, purposes=frozenset(_PURPOSES[earlier % len(_PURPOSES)]))
    return request


def _correction(random: Random, person: Person, kinds: Collection[str]) -> tuple[Person, dict[str, str]]:
    """A new name, a new e-mail address or a new home; sometimes all at once."""
    corrected, corrections = person, dict[str, str]()
    if "name" in kinds:
        corrected = replace(corrected, last_name=f"{person.last_name}-Neu")
        corrections |= {"user.name": corrected.name, "user.name.last": corrected.last_name}
    if "email" in kinds:
        corrected = replace(corrected, email=f"new.{person.email}")
        corrections["user.contact.email"] = corrected.email
    if "address" in kinds:
        home = Address(f"Neue Straße {random.randint(1, 99)}", "04275", "Leipzig", "DE")
        corrected = replace(corrected, address=home)
        corrections |= {
            "user.contact.address.street": home.street,
            "user.contact.address.postal_code": home.postal_code,
            "user.contact.address.city": home.city,
            "user.contact.address.country": home.country,
        }
    return corrected, corrections
