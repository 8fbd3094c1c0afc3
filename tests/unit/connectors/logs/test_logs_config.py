"""Settings of the ``logs`` connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.contract import Action
from connectors.logs import LogsConfig
from tests.support.log_files import COMBINED_SOURCE, JSON_SOURCE, logs


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sources": [{**JSON_SOURCE, "files": "../*.log"}]}, "inside the root"),
        ({"sources": [{**JSON_SOURCE, "files": ["/var/log/*"]}]}, "inside the root"),
        ({"sources": [{**JSON_SOURCE, "files": "a/../../b"}]}, "inside the root"),
        ({"sources": [{**JSON_SOURCE, "live": ["../x"]}]}, "inside the root"),
        ({"sources": [JSON_SOURCE, JSON_SOURCE]}, "different names"),
        ({"sources": [{**JSON_SOURCE, "fields": {"x": {}}}]}, "categories"),
        ({"sources": [{**JSON_SOURCE, "fields": {"x": {"identity": "shoe_size"}}}]}, "identity"),
        ({"sources": [{**JSON_SOURCE, "fields": {"x": {"identity": "ip"}}}]}, "leaves nothing"),
        ({"sources": [{**JSON_SOURCE, "format": "regex"}]}, "'pattern'"),
        ({"sources": [{**JSON_SOURCE, "pattern": "x"}]}, "'pattern'"),
        ({"sources": [{**JSON_SOURCE, "format": "regex", "pattern": "("}]}, "regular expression"),
        ({"sources": [{**JSON_SOURCE, "format": "regex", "pattern": "(?P<user_id>x)"}]}, "no field 'at'"),
        ({"sources": [{**COMBINED_SOURCE, "fields": {"email": {"identity": "email"}}}]}, "no field 'email'"),
        ({"sources": [{**JSON_SOURCE, "on_erase": "pseudonymise"}]}, "pseudonym_key"),
        ({"identities": ["phone"]}, "'phone'"),
        ({"discover": ["device_id"]}, "'device_id'"),
        ({"token": 'a "b"'}, "token"),
        ({"token": "ä"}, "token"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_fault_is_refused_and_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LogsConfig.model_validate({"root": "logs", "sources": [JSON_SOURCE], **settings})


def test_the_root_is_relative_to_the_systems_file(tmp_path: Path) -> None:
    config = LogsConfig.model_validate({"root": "logs", "sources": [JSON_SOURCE]}, context={"directory": tmp_path})
    assert config.root == tmp_path / "logs"


def test_the_planner_is_told_what_the_system_holds_and_can_do() -> None:
    connector = logs(Path("logs"), JSON_SOURCE, COMBINED_SOURCE)
    assert connector.categories() == {
        "user.unique_id",
        "user.contact.email",
        "user.device.ip_address",
        "user.device",
    }
    assert connector.identified_by() == {"user_id", "email"}
    assert connector.discovers() == frozenset()
    assert connector.supports() == {Action.ACCESS, Action.ERASE, Action.VERIFY}
    assert logs(Path("logs"), JSON_SOURCE, identities=["ip"]).identified_by() == {"ip"}


def test_a_pattern_that_this_python_matches_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = {**JSON_SOURCE, "format": "regex", "pattern": r"(?P<user_id>\w++) (?P<email>.*)", "context": []}
    source["fields"] = {"user_id": {"identity": "user_id"}, "email": {"identity": "email"}}
    monkeypatch.setattr("connectors.logs.config.MISMATCHED", False)
    assert LogsConfig.model_validate({"root": "/", "sources": [source]}).sources[0].pattern == source["pattern"]
    monkeypatch.setattr("connectors.logs.config.MISMATCHED", True)
    with pytest.raises(ValidationError, match=r"before 3\.11\.5"):
        LogsConfig.model_validate({"root": "/", "sources": [source]})
