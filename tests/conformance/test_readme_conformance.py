"""The connector in ``connectors/README.md`` works as it stands there, and keeps the contract's laws."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import connectors
from connectors.conformance import ConnectorConformance, World
from connectors.contract import Action, Identity, RateLimited, Unauthorised
from tests.support.http_fake import Answer, Asked, running_http_fake
from tests.support.stripe_world import perform, task

README = Path(connectors.__file__).with_name("README.md")


def example() -> dict[str, Any]:
    """The names that the README's first Python block defines."""
    (code, *_) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, str(README), "exec", dont_inherit=True), names)
    return names


def crm_at(url: str) -> Any:
    names = example()
    return names["Crm"]("crm", names["CrmConfig"](url=url, token="t0ken"))


class TestReadmeConformance(ConnectorConformance):
    actions = frozenset({Action.ACCESS, Action.ERASE, Action.VERIFY})

    @pytest.fixture
    def world(self) -> Iterator[World]:
        contacts = {f"c-{n}": {"id": f"c-{n}", "email": f"{n}@x.example", "name": n} for n in ("ada", "bob", "eve")}

        def crm(asked: Asked) -> Answer:
            if asked.method == "GET":
                return Answer(body=[c for c in contacts.values() if c["email"] == asked.query.get("email")])
            known = contacts.pop(asked.path.removeprefix("/contacts/"), None)
            return Answer(body={}) if known else Answer(404)

        with running_http_fake(crm) as server:
            yield World(
                connector=crm_at(server.url),
                person=(Identity("email", "ada@x.example"),),
                other=(Identity("email", "bob@x.example"),),
                stranger=(Identity("email", "zoe@x.example"),),
                snapshot=lambda: {
                    label: copy.deepcopy(contacts.get(f"c-{n}"))
                    for label, n in (("person", "ada"), ("other", "bob"), ("third", "eve"))
                },
                unreachable=crm_at("http://127.0.0.1:9"),
            )


def test_the_readmes_connector_says_what_an_operator_should_do() -> None:
    answers = [Answer(401), Answer(429, headers={"Retry-After": "9"})]
    with running_http_fake(lambda _: answers.pop(0)) as server:
        refused = perform(crm_at(server.url), task(Action.ERASE, Identity("email", "ada@x.example")))
        slower = perform(crm_at(server.url), task(Action.ERASE, Identity("email", "ada@x.example")))

    assert isinstance(refused, Unauthorised)
    assert isinstance(slower, RateLimited)
    assert slower.after
    assert slower.after.total_seconds() == 9
