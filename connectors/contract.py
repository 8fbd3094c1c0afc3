"""What a connector author writes against: a handful of frozen values and one base class.

A connector is one class for one kind of system. It says which settings it needs (``Config``), and it defines a
method for each thing its system can do, either for one data subject or for a whole batch, whichever the system offers:

    class Crm(Connector[CrmConfig]):
        Config = CrmConfig

        def erase(self, task: Task, call: Call) -> Done:                       # one person
            ...

        def access_many(self, tasks: Sequence[Task], call: Call) -> Results:   # many people at once
            ...

Everything else (batching, retries, leases, sealing, reports) is the engine's. Three rules bind an author:

* **The same task may come twice.** ``Task.key`` is the same on every attempt: hand it to the vendor as the idempotency
  key, or make the call harmless to repeat.
* **Claims are exact.** ``EXECUTED`` says it was done, ``VERIFIED`` that it was looked up afterwards, ``ACCEPTED`` that
  the vendor promised it. Whatever stays is a ``Retention`` or a ``Residue``, with its reason.
* **No personal data** in an error's text, a handle, a count's name or evidence.

This module imports the standard library and pydantic alone, never the orchestrator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

__all__ = [
    "MOST_PARALLEL",
    "Action",
    "Call",
    "Connector",
    "ConnectorConfig",
    "ConnectorError",
    "Declined",
    "Done",
    "Fatal",
    "Identity",
    "MissingExtra",
    "Outcome",
    "Pending",
    "RateLimited",
    "RelativePath",
    "Residue",
    "Result",
    "Results",
    "Retention",
    "Retryable",
    "Sink",
    "Task",
    "Unauthorised",
]

MOST_PARALLEL = 1000
"""Threads that one batch may have."""
JSON = Any
"""A value that ``json.dumps`` takes."""


class Action(StrEnum):
    """What a system can be asked to do about a data subject."""

    DISCOVER = "discover"
    """Find further identities of the person (``Done.found``); changes nothing."""
    ACCESS = "access"
    """Gather the person's records into the call's sink; changes nothing."""
    RECTIFY = "rectify"
    """Write ``Task.corrections`` over the person's fields."""
    ERASE = "erase"
    """Delete or irreversibly mask the person's data."""
    RESTRICT = "restrict"
    """Freeze: keep the data, stop every other processing."""
    SUPPRESS = "suppress"
    """Stop processing for ``Task.purposes`` (objection, opt-out)."""
    VERIFY = "verify"
    """Look, after the fact, whether ``Task.options["of"]`` (an action) holds; changes nothing."""
    GATE = "gate"
    """Wait for a person or a time. The ``desk`` connector alone does this."""
    PACKAGE = "package"
    """Put what the access steps gathered into one sealed package. The engine alone does this."""


class Outcome(StrEnum):
    """How a task ended. A closed set, never blurred."""

    EXECUTED = "executed"
    VERIFIED = "verified"
    ACCEPTED = "accepted"
    RESIDUAL = "residual"
    NO_MATCH = "no_match"
    RETAINED = "retained"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Identity:
    """One way a person is known: ``Identity("email", "a@b.example")``.

    ``type`` is one of email, user_id, phone, device_id, ip, stripe_customer_id or ``custom:<name>``.
    ``format`` is ``raw``, or ``sha256``: the lower-case hex digest of the normalised value.
    """

    type: str
    value: str
    format: str = "raw"

    def __repr__(self) -> str:
        """Names the type only, so that an identity in a traceback or a log tells nothing."""
        return f"Identity({self.type!r}, …)"

    def digest(self) -> str:
        """The SHA-256 hex digest of the normalised value, whichever format this identity came in."""
        if self.format == "sha256":
            return self.value
        return hashlib.sha256(self.value.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Task:
    """One action on one system for one data subject."""

    key: str
    """Idempotency key: the same on every attempt, and the same again when a message is carried out anew because the
    database that knew of it was lost. At most 64 ASCII characters."""
    action: Action
    identities: tuple[Identity, ...]
    categories: frozenset[str] | None = None
    """Data categories (Fides keys; a key covers its children) in scope; ``None``: all that the system holds."""
    corrections: Mapping[str, str] = field(default_factory=dict)
    """Rectification: Fides data category key → new value, e.g. ``{"user.name": "Ada Lovelace"}``."""
    purposes: frozenset[str] = frozenset()
    """Objection and restriction: the purposes concerned, e.g. ``marketing``; empty: all."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    """The workflow step's ``with:`` block."""
    handle: Mapping[str, JSON] | None = None
    """What the last attempt's ``Pending`` carried; ``None`` on a first attempt."""
    signal: Mapping[str, JSON] | None = None
    """What was reported while parked (an operator's decision, a remote team's report)."""
    attempt: int = 1
    deadline: datetime | None = None

    def values(self, kind: str) -> tuple[str, ...]:
        """The raw values of this task's identities of one type, without repeats, in order."""
        return tuple(dict.fromkeys(i.value for i in self.identities if i.type == kind and i.format == "raw"))

    def covers(self, category: str) -> bool:
        """Whether a data category is in this task's scope: it, or a parent of it, is named (or all are)."""
        if self.categories is None:
            return True
        return any(category == c or category.startswith(c + ".") for c in self.categories)


@dataclass(frozen=True, slots=True)
class Retention:
    """What rightly stays, and why."""

    what: str
    """The kind of record, e.g. ``invoices``; never whose."""
    reason: str
    legal_basis: str
    """e.g. ``GDPR Art. 17(3)(b): tax law, § 147 AO``."""
    records: int
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Residue:
    """What is gone from the live system and still lies in a backup or time travel until a date."""

    where: str
    until: date


@dataclass(frozen=True, slots=True)
class Done:
    """The task ended, like this."""

    outcome: Outcome
    counts: Mapping[str, int] = field(default_factory=dict)
    """Kind of record → how many were acted on, e.g. ``{"orders": 3}``. Kinds only, never a person's values."""
    retained: tuple[Retention, ...] = ()
    residues: tuple[Residue, ...] = ()
    found: tuple[Identity, ...] = ()
    """Discover: identities found, those already known included or not."""
    evidence: Mapping[str, JSON] = field(default_factory=dict)
    """Proof to keep: job ids, digests, times. No personal data."""
    note: str = ""
    """For unsupported and skipped: why, in words."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not ended: ask again after ``poll_after``, or when something is reported. Holds no worker meanwhile."""

    handle: Mapping[str, JSON]
    """Comes back as ``Task.handle``. No personal data."""
    poll_after: timedelta | None = None
    """``None``: only a report or an operator wakes it."""
    waiting_on: str = ""
    """In words, for ``habeas why``: e.g. ``approval by the privacy team``."""


@dataclass(frozen=True, slots=True)
class Declined:
    """A gate said no: the whole request ends. ``reason`` is from the Data Rights Protocol's vocabulary."""

    reason: str
    expired: bool = False
    """Nobody answered in time, rather than somebody said no."""
    note: str = ""


class ConnectorError(Exception):
    """The connector failed."""

    def __init__(self, message: str = "", *, after: timedelta | None = None) -> None:
        """``message``: one sentence for an operator, without personal data; ``after``: the vendor's Retry-After."""
        super().__init__(message or (self.__doc__ or "").strip())
        self.after = after


class Retryable(ConnectorError):
    """The system did not answer as it should; the same call may succeed later."""


class RateLimited(Retryable):
    """The system asks for fewer calls."""


class Unauthorised(ConnectorError):
    """The system refuses our credentials; an operator must renew them."""


class Fatal(ConnectorError):
    """The call can never succeed as it is; an operator must look."""


Result = Done | Pending | Declined | ConnectorError
"""What becomes of a task. Errors may be raised, or returned for single tasks of a batch."""
Results = Mapping[str, Result]
"""``Task.key`` → result, for every task of the batch. A missing key counts as ``Retryable``."""


class Sink(Protocol):
    """Where gathered records go; streaming, constant memory."""

    def write(self, collection: str, record: Mapping[str, JSON]) -> None:
        """Add one record (values that JSON takes) to a named collection, e.g. ``orders``."""

    def lines(self, collection: str, lines: bytes, count: int) -> None:
        """Add ``count`` records that are JSON already: objects in UTF-8, each on a line that ends with a newline."""

    def attach(self, name: str, chunks: Iterable[bytes]) -> None:
        """Add one file, e.g. ``avatars/1.png``."""


class Call(Protocol):
    """What the engine lends a connector for the length of one call."""

    @property
    def now(self) -> datetime:
        """The engine's time, in UTC."""

    def sink(self, task: Task) -> Sink:
        """The sink of one access task. A failed attempt's sink is thrown away."""


class ConnectorConfig(BaseModel):
    """Base of every connector's settings: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("directory", ".")) / path


RelativePath = Annotated[Path, AfterValidator(_beside_the_file)]
"""A path in a connector's settings, relative to the systems file that names it."""


class MissingExtra(ConnectorError):
    """A connector's optional dependency is not installed; the message is the line that installs it."""


ConfigT = TypeVar("ConfigT", bound=ConnectorConfig)


class Connector(Generic[ConfigT]):
    """Base class. Define ``discover``, ``access``, ``rectify``, ``erase``, ``restrict``, ``suppress``, ``verify``.

    Each takes ``(task, call)`` and returns a ``Done`` or ``Pending``, or raises a ``ConnectorError``. With the suffix
    ``_many`` it takes ``(tasks, call)`` and returns ``Results``: define that where the system has a bulk call. Define
    one of the two, and only for what the system can do.
    """

    Config: ClassVar[type[ConnectorConfig]]
    parallel: int = 8
    """How many tasks of a batch run at once, in threads, where only the one-person method is defined. The settings of a
    system may say otherwise, up to ``MOST_PARALLEL``; not before ``__init__`` has ended."""
    batch: ClassVar[int] = 100
    """The largest batch that makes sense for this kind of system; a system's settings may lower it."""

    def __init__(self, system: str, config: ConfigT) -> None:
        """Do no I/O here beyond reading configuration files: it runs in ``habeas check`` as well."""
        self.system = system
        self.config = config

    # What the planner needs to know. -------------------------------------------------------------------------------

    @classmethod
    def actions(cls) -> frozenset[Action]:
        """The actions this connector defines a method for."""
        return frozenset(a for a in Action if hasattr(cls, a.value) or hasattr(cls, f"{a.value}_many"))

    def supports(self) -> frozenset[Action]:
        """The actions this system, as configured, can do; fewer than ``actions`` where settings leave some out."""
        return self.actions()

    def categories(self) -> frozenset[str]:
        """The data categories (Fides keys) that the system holds."""
        return frozenset()

    def identified_by(self) -> frozenset[str]:
        """The identity types by which the system can find a person."""
        return frozenset()

    def discovers(self) -> frozenset[str]:
        """The identity types that ``discover`` can find."""
        return frozenset()

    def erase_after(self) -> frozenset[str]:
        """Names of systems that must be erased before this one, as the data map says."""
        return frozenset()

    def close(self) -> None:
        """Let go of connections."""

    # What the engine calls. ----------------------------------------------------------------------------------------

    def perform(
        self, action: Action, tasks: Sequence[Task], call: Call, begin: Callable[[Task], bool] = lambda _: True
    ) -> Iterator[tuple[Task, Result]]:
        """Carry out one action for a batch; yields each task once, with its result, as results come in.

        ``begin`` is asked right before a task begins; one that may not is left out. A ``ConnectorError`` raised by a
        batch method is the result of every task in it. Other exceptions propagate: the engine takes them for defects.
        """
        many = getattr(self, f"{action.value}_many", None)
        if many is not None:
            may = [task for task in tasks if begin(task)]
            if may:
                yield from self._perform_many(cast("Callable[[Sequence[Task], Call], Results]", many), may, call)
            return
        one = cast("Callable[[Task, Call], Result]", getattr(self, action.value))

        def attempt(task: Task) -> Result | None:
            if not begin(task):
                return None
            try:
                return one(task, call)
            except ConnectorError as error:
                return error

        if len(tasks) == 1 or self.parallel == 1:
            yield from ((task, result) for task in tasks if (result := attempt(task)) is not None)
            return
        with ThreadPoolExecutor(max_workers=min(self.parallel, len(tasks))) as pool:
            under_way = {pool.submit(attempt, task): task for task in tasks}
            for done in as_completed(under_way):
                if (result := done.result()) is not None:
                    yield under_way[done], result

    @staticmethod
    def _perform_many(
        many: Callable[[Sequence[Task], Call], Results], tasks: Sequence[Task], call: Call
    ) -> Iterator[tuple[Task, Result]]:
        try:
            results = many(tasks, call)
        except ConnectorError as error:
            for task in tasks:
                yield task, error
            return
        for task in tasks:
            yield task, results.get(task.key, Retryable("the connector gave no result for this task"))
