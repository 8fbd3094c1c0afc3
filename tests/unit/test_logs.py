"""What is logged holds no personal data, whichever way it came in."""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Identity as ContractIdentity
from orchestrator import logs
from orchestrator.core.model import Identity
from orchestrator.errors import HabeasError

DIGITS = st.text("0123456789", min_size=8, max_size=14)
EMAILS = st.one_of(
    st.emails(),
    st.builds("{}@{}.example".format, st.text("abcäöüß.+-_", min_size=1, max_size=20), st.text("abc-", min_size=1)),
)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str).filter(lambda a: any(c.isdigit() for c in a)),
    st.ip_addresses(v=6).map(lambda a: a.exploded),
)
PHONES = st.one_of(
    DIGITS.map("+4{}".format),
    DIGITS.map(lambda d: f"+49 {d[:3]} {d[3:6]}-{d[6:]}"),
    DIGITS.map(lambda d: f"({d[:3]}) {d[3:6]}.{d[6:]}"),
    st.text("0123456789", min_size=16, max_size=16).map(lambda d: f"{d[:4]} {d[4:8]} {d[8:12]} {d[12:]}"),
)
PERSONAL = st.one_of(EMAILS, ADDRESSES, PHONES)
GLUE = st.sampled_from(["", " ", "=", ": ", "user ", "<", "('", '"', " for ", "\n", "key=("])


@pytest.fixture
def stream():
    out = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure("json", "DEBUG", out, process="worker")
    yield out
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def leaves(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@given(PERSONAL, GLUE, GLUE)
def test_an_address_or_number_in_a_text_does_not_get_out(personal, before, after):
    cleaned = logs.redact_text(f"{before}{personal}{after} done")
    assert personal not in cleaned
    assert cleaned.endswith("done")


@given(EMAILS, st.text(max_size=30), st.text(max_size=30))
def test_an_email_does_not_get_out_whatever_stands_around_it(email, before, after):
    assert email not in logs.redact_text(before + email + after)


@given(PERSONAL, st.integers(0, 6))
def test_personal_data_nested_anywhere_does_not_get_out(personal, depth):
    value: object = {"note": personal, personal: 1, "e": ValueError(f"no user {personal}"), "b": personal.encode()}
    for level in range(depth):
        value = {"inner": [value, (personal,)]} if level % 2 else [value, {personal}]
    assert personal not in leaves(logs.redact({"event": "step.failed", "detail": value}))


@given(PERSONAL)
def test_an_exception_and_its_causes_are_logged_without_personal_data(personal):
    def lose() -> None:
        try:
            {}[personal]
        except KeyError as cause:
            raise HabeasError(f"lost {personal}") from cause

    with pytest.raises(HabeasError) as caught:
        lose()
    assert personal not in leaves(logs._frames(caught.value))


@pytest.mark.parametrize("kind", [Identity, ContractIdentity])
def test_an_identity_is_reduced_to_its_class(kind):
    assert logs.redact({"who": kind("user_id", "u-1")}) == {"who": "<Identity>"}


def test_values_under_sensitive_keys_are_dropped_whatever_they_look_like():
    cleaned = logs.redact(
        {"password": "hunter2", "X-Api-Key": "abc", "subject": {"n": "Ada"}, "user_email": 7, "ok": True}
    )
    assert cleaned == {
        "password": "[redacted]", "X-Api-Key": "[redacted]", "subject": "[redacted]", "user_email": "[redacted]",
        "ok": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "request 018f3c2a-7b1c-7000-8000-123456789012",
        "due 2026-11-22T13:18:00Z",
        "took 13:18:00",
        "step 018f3c2a-7b1c-7000-8000-123456789012/3",
        "status 503 after 120000 ms",
        "std::vector and module::name",
        "digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_an_operator_needs_stays_readable(text):
    assert logs.redact_text(text) == text


def test_a_line_carries_its_event_level_logger_process_and_time(stream):
    logs.get("intake").info("request.admitted", request="r1", count=3)
    (line,) = lines(stream)
    assert line["event"] == "request.admitted"
    assert (line["level"], line["logger"], line["process"], line["count"]) == ("info", "habeas.intake", "worker", 3)
    assert str(line["timestamp"]).endswith("Z")


def test_a_traceback_shows_types_and_places_but_no_locals_and_no_source(stream):
    secret_local = "ada@example.org"
    try:
        int(f"{secret_local} at 10.1.2.3")
    except ValueError:
        logs.get("worker").exception("connector.crashed")
    (line,) = lines(stream)
    text = leaves(line)
    assert "ada" not in text
    assert "10.1.2.3" not in text
    assert "ValueError" in text
    assert "test_logs.py:" in text
    assert "secret_local" not in text


def test_people_read_a_traceback_below_its_line(stream):
    logs.configure("console", "DEBUG", stream)
    try:
        int("ada@example.org")
    except ValueError:
        logs.get("worker").exception("connector.crashed")
    first, error, place = stream.getvalue().splitlines()
    assert "connector.crashed" in first
    assert error == "ValueError: invalid literal for int() with base 10: […]"
    assert "test_logs.py:" in place


def test_lines_of_libraries_take_the_same_way(stream):
    library = logging.getLogger("somelib")
    library.warning("login of %s from %s failed", "ada@example.org", ipaddress.ip_address("10.1.2.3"))
    try:
        int("for ada@example.org")
    except ValueError:
        library.exception("oops +49 170 1234567")
    first, second = lines(stream)
    assert (first["event"], first["logger"], first["message"]) == (
        "library", "somelib", "login of [email] from [ip] failed",
    )  # fmt: skip
    assert "exception" in second
    assert "ada" not in stream.getvalue()
    assert "1234567" not in stream.getvalue()


def test_warnings_take_the_same_way(stream):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("unsafe for ada@example.org", stacklevel=1)
    assert "ada" not in stream.getvalue()
    assert lines(stream)[0]["logger"] == "py.warnings"


def test_an_uncaught_exception_takes_the_same_way(stream):
    error = RuntimeError("for ada@example.org")
    sys.excepthook(RuntimeError, error, None)
    assert lines(stream)[0]["event"] == "process.crashed"
    assert "ada" not in stream.getvalue()


def test_a_bad_log_call_of_a_library_prints_nothing(stream, capsys):
    logging.getLogger("somelib").warning("%d people", "ada@example.org")
    assert "ada" not in capsys.readouterr().err + stream.getvalue()


def test_every_event_has_a_meaning():
    assert all(name == name.lower() and meaning.endswith(".") for name, meaning in logs.EVENTS.items())


def test_every_event_that_the_code_logs_is_in_the_table():
    code = Path(logs.__file__).parent
    call = re.compile(r"\.(?:debug|info|warning|error|exception|critical)\(\s*\"([a-z_]+\.[a-z_.]+)\"")
    names = {name for path in code.rglob("*.py") for name in call.findall(path.read_text())}
    assert len(names) > 5
    assert names <= set(logs.EVENTS)
