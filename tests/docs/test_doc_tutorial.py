"""The tutorial speaks of people who are in the demo shop, and who asked for nothing in it."""

from __future__ import annotations

import re
from pathlib import Path

from examples.shop.world import SOURCES, Shop
from tests.support.pages import page

PEOPLE, REQUESTS = 3000, 300
"""What ``habeas demo`` takes when nothing else is said."""


def test_the_people_of_the_tutorial_are_there_and_have_asked_for_nothing_yet(tmp_path: Path) -> None:
    shop = Shop.create(tmp_path, "postgresql+psycopg://shop@127.0.0.1/shop", PEOPLE, requests=REQUESTS)
    named = set(re.findall(r"[\w.]+@mail\.example", page("docs/tutorial/first-request.md").text))
    known = {person.email: person.user_id for person in shop.persons}
    assert len(named) == 2
    assert named <= known.keys()
    asked = {value for request in shop.cast.requests for _, value in request.identities}
    assert asked.isdisjoint(named | {known[email] for email in named})


def test_the_sources_of_the_tutorial_are_the_shops() -> None:
    named = set(re.findall(r"--source (\S+)", page("docs/tutorial/first-request.md").text))
    assert named == set(re.findall(r"source: (/\S+)", SOURCES.read_text()))
