"""Logging: one line per event, a name from one table, and no personal data.

Every line goes through ``redact``: values under sensitive keys, and whatever looks like an e-mail address, IP or MAC
address, phone, card or account number, wherever it stands (nested, in keys, in an exception's text), are replaced.
Tracebacks show types and places, no local variables and no source lines. Lines of libraries, Python's warnings and
uncaught exceptions take the same way. Redaction is the safety net: nothing personal should be logged to begin with.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Any, Literal, TextIO, cast
from uuid import UUID

import structlog

__all__ = ["EVENTS", "configure", "get", "redact", "redact_text"]

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        # intake
        "message.received": "A delivery was read from the intake queue.",
        "request.admitted": "A request was stored and planned.",
        "request.repeated": "The same message came again; it gets the same answer and no second run.",
        "message.refused": "A message was refused and lies sealed in quarantine; `reason` says why.",
        "message.unprocessable": "A message hit a defect in Habeas and was set aside in quarantine.",
        # work
        "steps.claimed": "A worker took a batch of steps of one system under a lease.",
        "batch.worked": "A connector carried out one action for a batch; `seconds` includes settling.",
        "steps.settled": "The results of a batch were stored.",
        "steps.lost": "Leases ran out: their worker is gone; the steps come back and are claimed alone.",
        "steps.fenced": "A result came after its lease was lost and was not taken.",
        "step.failed": "A step failed; it is tried again or wants attention.",
        "step.attention": "A step can't go on by itself and wants an operator.",
        "step.parked": "A step waits for a time or an answer and holds no worker.",
        "ring.unknown": "A doorbell rang for a system that this worker's systems file does not name.",
        "connector.crashed": "A connector raised something that is no ConnectorError: a defect in it.",
        "connector.paused": "A system's breaker opened or an operator paused it.",
        "connector.resumed": "Work on a system goes on.",
        "request.closed": "A request ended; `resolution` says how.",
        "request.shredded": "A closed request's key was destroyed; its personal data can't be read any more.",
        "steps.folded": "The steps of requests closed long ago became one entry in the audit trail of each.",
        # operators
        "operator.acted": "An operator retried, skipped, approved, cancelled, paused or resumed something.",
        # outbox and timers
        "outbox.published": "Events were published and confirmed by the broker.",
        "reply.undeliverable": "A sender's reply queue is gone; the event went to the events exchange alone.",
        "outbox.stuck": "The broker did not confirm events; they stay and are published again.",
        "sweep.finished": "One round of the clock: leases expired, timers fired, doorbells rung, purges done.",
        "leader.elected": "This clock process leads now.",
        "leader.lost": "This clock process leads no longer.",
        # processes
        "process.started": "A process is ready.",
        "process.stopping": "A process was asked to stop and finishes what it holds.",
        "process.cut_short": "The grace time was over before the work was; it is taken back when its leases run out.",
        "process.stopped": "A process ended in good order.",
        "process.crashed": "An exception that nobody caught ended a process or thread.",
        "database.unavailable": "The database does not answer; waiting.",
        "broker.unavailable": "The broker does not answer; waiting.",
        "database.back": "The database answers again.",
        "broker.back": "The broker answers again.",
        "migration.applied": "The database schema was brought to a new version.",
        "library": "A line or warning of a library; `logger` says which.",
    }
)
"""Every event name that Habeas logs, and what it means. The documentation's table is made from this."""

_SENSITIVE = frozenset(
    [
        "value",
        "values",
        "identity",
        "identities",
        "subject",
        "email",
        "mail",
        "e_mail",
        "phone",
        "telephone",
        "ip",
        "ip_address",
        "address",
        "addresses",
        "first_name",
        "last_name",
        "full_name",
        "username",
        "user_name",
        "body",
        "payload",
        "data",
        "record",
        "records_data",
        "corrections",
        "password",
        "passwd",
        "secret",
        "secrets",
        "token",
        "api_key",
        "apikey",
        "authorization",
        "cookie",
        "set_cookie",
        "private_key",
        "key_bytes",
        "credentials",
        "dsn",
        "requested_by",
        "evidence",
    ]
)
_SENSITIVE_PART = re.compile(r"(?i)passw|secret|e-?mail|phone|credential|api_?key|authorization|cookie")

_KEEP = (
    r"(?P<keep>"
    r"(?<![\w-])[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}(?![\w-])"  # a UUID
    r"|(?<![\w])(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})(?![\w])"  # a digest
    r"|(?<![\d-])(?:19|20)\d\d-[01]\d-[0-3]\d"  # a date, with a time or without
    r"(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?(?![\d-])"
    r")"
)
_EMAIL = r"(?P<email>(?:\"[^\"\n]{1,128}\"|[^\s\"'<>()\[\]{},;:=|]*)(?:@|%40|\uff20|&#64;)[^\s\"'<>()\[\]{},;|]*)"
_IPV6 = (
    r"(?P<ip6>(?:[0-9a-fA-F]{1,4}:){5,7}[0-9a-fA-F:.]{1,39}"  # five colons and more: also a MAC address
    r"|(?=[0-9a-fA-F:.]*(?:\d|[a-fA-F]{3}))(?:"  # shortened; names such as ``std::vector`` have neither of these
    r"(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,6})?::[0-9a-fA-F:.]{1,39}"
    r"|[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,6}::))"
)
_MAC = r"(?P<mac>(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2})"
_IPV4 = r"(?P<ip4>\d{1,3}(?:\.\d{1,3}){3})"
_NUMBER = r"(?P<number>\+?\(?\d(?:[ \t\u00a0().\-/\u2010-\u2015]{0,3}\d){6,})"
_PATTERN = re.compile("|".join((_KEEP, _EMAIL, _IPV6, _MAC, _IPV4, _NUMBER)))
_NAMES = {"email": "[email]", "ip6": "[ip]", "mac": "[mac]", "ip4": "[ip]", "number": "[number]"}
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`|=\([^)\n]*\)")

_MAX_TEXT = 4000
_MAX_DEPTH = 8
_MAX_INTEGER = 10**9  # a longer number may be a phone, card or account number

_OURS = frozenset({"level", "logger"})
"""Fields that structlog fills in, with one of a few names."""
_OWN = ("orchestrator", "connectors", "habeas")


def redact_text(text: str) -> str:
    """The text with everything that looks like personal data replaced by what it looked like, e.g. ``[email]``."""
    return _PATTERN.sub(lambda m: m[0] if m.lastgroup == "keep" else _NAMES[cast("str", m.lastgroup)], text[:_MAX_TEXT])


def redact(value: object, depth: int = 0) -> object:
    """A copy that JSON takes, without personal data. Objects of other classes are reduced to their class's name."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, BaseException):
        return _exception_text(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth >= _MAX_DEPTH:
            return "[…]"
        if isinstance(value, Mapping):
            return {redact_text(str(k)): _entry(str(k), v, depth + 1) for k, v in value.items()}
        return [redact(item, depth + 1) for item in value]
    return _redact_scalar(value)


def _redact_scalar(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < _MAX_INTEGER else "[number]"
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | timedelta):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    return f"<{type(value).__name__}>"


def _entry(key: str, value: object, depth: int) -> object:
    if value is not None and not isinstance(value, bool) and _sensitive(key):
        return "[redacted]"
    return redact(value, depth)


def _sensitive(key: str) -> bool:
    plain = key.lower().replace("-", "_")
    return plain in _SENSITIVE or _SENSITIVE_PART.search(plain) is not None


@lru_cache(1024)
def _field(key: str) -> tuple[str, bool]:
    """A field's name, as it is shown, and whether its value is not: the same few names stand in every line."""
    return redact_text(key), _sensitive(key)


def _exception_text(error: BaseException) -> str:
    """Our own errors are written to hold nothing personal; of others the first line, without what they quote."""
    name = type(error).__name__
    if type(error).__module__.split(".")[0] in _OWN:
        return f"{name}: {redact_text(str(error))}"
    first = str(error).split("\n", 1)[0]
    return f"{name}: {redact_text(_QUOTED.sub('[…]', first))}" if first else name


def _frames(error: BaseException) -> list[dict[str, object]]:
    """The chain of exceptions, outermost first: text, and ``file:line function`` of the innermost frames."""
    chain: list[dict[str, object]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        places = traceback.extract_tb(current.__traceback__)[-20:]
        chain.append(
            {"error": _exception_text(current), "at": [f"{_short(p.filename)}:{p.lineno} {p.name}" for p in places]}
        )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return chain


def _short(path: str) -> str:
    return "/".join(path.replace("\\", "/").split("/")[-3:])


# Processors: each has structlog's signature, of which only the event dict matters here.

_Event = structlog.typing.EventDict


def _explain_exception(_logger: object, _method: str, event: _Event) -> _Event:
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = _frames(error)
    event.pop("stack_info", None)
    return event


def _redact_event(_logger: object, _method: str, event: _Event) -> _Event:
    clean: _Event = {}
    for key, value in event.items():
        # structlog keeps its own bookkeeping under keys that start with an underscore, and takes it away itself.
        if key.startswith("_"):
            clean[key] = value
            continue
        if key in _OURS and isinstance(value, str):
            clean[key] = _field(value)[0]
            continue
        name, sensitive = _field(key)
        hidden = sensitive and value is not None and not isinstance(value, bool)
        clean[name] = "[redacted]" if hidden else redact(value, 1)
    return clean


def _exception_as_text(_logger: object, _method: str, event: _Event) -> _Event:
    """For people, below the line: an error, then where it came from, innermost last; then what caused it."""
    frames = event.get("exception")
    if isinstance(frames, list):
        lines = [line for frame in frames for line in (frame["error"], *(f"  at {place}" for place in frame["at"]))]
        event["exception"] = "\n".join(lines)
    return event


def _from_library(_logger: object, _method: str, event: _Event) -> _Event:
    """A library's line is text of its own making: it moves to ``message``, and the event's name is ``library``."""
    event["message"] = str(event.get("event", ""))
    event["event"] = "library"
    return event


def configure(
    style: Literal["json", "console"] = "json", level: str = "INFO", stream: TextIO | None = None, process: str = ""
) -> None:
    """Set up logging for this process; may be called again. ``process``: e.g. ``worker``, on every line.

    ``level`` is for Habeas; libraries log from WARNING up. ``stream`` defaults to standard error.
    """

    def name_process(_logger: object, _method: str, event: _Event) -> _Event:
        if process:
            event.setdefault("process", process)
        return event

    ours: list[structlog.typing.Processor] = [
        name_process,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
    ]
    if style == "json":
        renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(sort_keys=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=bool(getattr(stream or sys.stderr, "isatty", bool)()))
    last: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _explain_exception,
        _redact_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True),  # after redaction, which it needs not pass
        *([_exception_as_text] if style == "console" else []),
        renderer,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *ours, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(processors=last, foreign_pre_chain=[*ours, _from_library]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("habeas").setLevel(level.upper())
    logging.raiseExceptions = False  # its fallback would print the record, unredacted, to standard error
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Never adds the traceback that ``logging`` would cache on the record and print by itself."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        copy = logging.makeLogRecord(record.__dict__)
        copy.exc_text = None
        copy.stack_info = None
        return super().format(copy)


def get(component: str) -> structlog.stdlib.BoundLogger:
    """A logger, e.g. ``get("intake")``; log with ``.info("request.admitted", request=…)``, a name of ``EVENTS``."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(f"habeas.{component}"))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    get("process").critical("process.crashed", exc_info=(kind, error, trace))


def _uncaught_in_thread(arguments: Any) -> None:
    if arguments.exc_type is SystemExit:
        return
    info = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    get("process").critical("process.crashed", exc_info=info)
