"""For upstream services: ask for rights requests, and read the answers.

    from orchestrator.publish import Publisher

    with Publisher("amqp://…", source="urn:shop:accounts", secret="whsec_…") as habeas:
        message = habeas.erase(email="ada@example.org", regulation="gdpr")
        answer = habeas.wait(message, timeout=60)
        print(answer.resolution, answer.data["systems"])

A request is published as a signed CloudEvent, persistent, and confirmed by the broker before the call returns; what is
wrong with it raises ``RefusedMessage`` at once, naming every field. A request sent again under the same ``message_id``
is carried out once. One publisher belongs to one thread.
"""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import amqp
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from kombu.message import Message
from kombu.messaging import Consumer
from pydantic_core import to_json

from orchestrator.confirms import Receipts, Window, window_on
from orchestrator.core.vocabulary import Right
from orchestrator.errors import Unavailable
from orchestrator.messages.answers import Answer, read_answer
from orchestrator.messages.asking import Details, Options, body_of, stamp
from orchestrator.messages.body import validate
from orchestrator.messages.names import (
    INTAKE_ARGUMENTS,
    INTAKE_BINDING,
    INTAKE_QUEUE,
    REQUEST_TYPE,
    REQUESTS_EXCHANGE,
)
from orchestrator.messages.signing import Secret, sign
from orchestrator.wire import transport_of

__all__ = ["Answer", "Details", "Options", "Publisher"]

PGMQ_OPTIONS: Mapping[str, object] = {
    "init_extension": False,  # PGMQ is installed from SQL, without the extension
    "use_notify": True,
    "wait_time_seconds": 0,  # woken by NOTIFY instead of a poll that holds a connection
    "visibility_timeout": 60,
}
"""Transport options of the embedded broker."""

WINDOW = 500
"""Requests that are on their way before their confirmations are awaited."""
_log = logging.getLogger("habeas.publisher")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request as a message."""

    id: str
    body: bytes
    properties: Mapping[str, Any]


class Publisher:
    """Publishes requests of one source and reads the answers to them."""

    def __init__(
        self,
        broker_url: str,
        *,
        source: str,
        secret: str = "",
        replies: str = "",
        answer_secrets: Iterable[str] = (),
        transport_options: Mapping[str, object] | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Connects on first use.

        ``broker_url``: ``amqp://…`` or ``pgmq://…``. ``secret``: ``whsec_…`` or ``whsk_…``; requests go unsigned
        without. ``replies``: a durable queue for the answers, which outlives this publisher; without a name, a queue
        that is gone with it. ``answer_secrets``: when given, answers must be signed with one of them, others are
        dropped. ``timeout``: seconds to wait for the broker. Raises ``ConfigurationError`` for an unusable secret.
        """
        self._url = broker_url
        self._source = source
        self._secrets = [Secret(secret)] if secret else []
        self._answer_secrets = [Secret(text) for text in answer_secrets]
        self._named = bool(replies)
        self._pgmq = broker_url.startswith("pgmq")
        self.reply_queue = replies or f"habeas_replies_{uuid.uuid4().hex[:16]}"
        self._options = {**(PGMQ_OPTIONS if self._pgmq else {"confirm_publish": True}), **(transport_options or {})}
        self._timeout = timeout
        self._connection: Connection | None = None
        self._window: Window | None = None
        self._consumer: Consumer | None = None
        self._receipts: Receipts | None = None
        self._arrived: deque[tuple[Answer, Message | None]] = deque()

    def __repr__(self) -> str:
        """The source alone: the URL holds a password."""
        return f"Publisher({self._source!r})"

    def __enter__(self) -> Self:
        """This."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # Asking. ---------------------------------------------------------------------------------------------------------

    def request(self, right: Right | str, **options: Unpack[Options]) -> str:
        """Publish a request; gives the message id.

        Raises ``RefusedMessage`` (see its ``faults``) before anything is sent, and ``Unavailable`` when the broker did
        not confirm: it may have arrived all the same, so repeat it with the same ``message_id``.
        """
        message = self._message(right, options)

        # Once more on a fresh connection: it may have been cut while idle, and Habeas takes a message once.
        self._guard(partial(self._publish_window, str(right), [message]), attempts=2)
        return message.id

    def request_many(self, right: Right | str, requests: Iterable[Options]) -> list[str]:
        """Publish many requests, whose confirmations are awaited ``WINDOW`` at a time; gives their message ids.

        Raises as ``request`` does; those of earlier windows were published then, so give each its own ``message_id``
        and repeat them all.
        """
        ids: list[str] = []
        coming = iter(requests)
        while messages := [self._message(right, options) for options in islice(coming, WINDOW)]:
            self._guard(partial(self._publish_window, str(right), messages), attempts=2)
            ids += [message.id for message in messages]
        return ids

    def _publish_window(self, right: str, messages: Sequence[_Asking]) -> None:
        self._connect()
        if self._connection is None:
            raise Unavailable
        if self._window is None:
            self._window = window_on(self._connection.channel(), confirms=not self._pgmq)
        for message in messages:
            content = self._window.content(message.body, message.properties)
            # One that can't be routed comes back as an error instead of vanishing.
            self._window.publish(content, REQUESTS_EXCHANGE, right, mandatory=True)
        self._window.await_all(self._timeout)

    def _message(self, right: Right | str, options: Options) -> _Asking:
        """What the driver is to publish. Raises ``RefusedMessage``."""
        message_id = options.get("message_id") or str(uuid.uuid4())
        data = body_of(right, options)
        validate(data)
        now = datetime.now(UTC)
        event = {
            "specversion": "1.0",
            "id": message_id,
            "source": self._source,
            "type": REQUEST_TYPE,
            "time": stamp(now),
            "datacontenttype": "application/json",
            "data": data,
        }
        body = to_json(event)
        properties = {
            "headers": sign(body, message_id, now, self._secrets) if self._secrets else {},
            "content_type": "application/cloudevents+json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "message_id": message_id,
            "correlation_id": options.get("correlation_id") or message_id,
            "reply_to": self.reply_queue,
        }
        return _Asking(message_id, body, properties)

    def access(self, **options: Unpack[Options]) -> str:
        """Ask for a copy of the person's data."""
        return self.request(Right.ACCESS, **options)

    def rectify(self, **options: Unpack[Options]) -> str:
        """Ask to correct data: ``corrections={"user.name": "Ada Lovelace"}``."""
        return self.request(Right.RECTIFICATION, **options)

    def erase(self, **options: Unpack[Options]) -> str:
        """Ask to erase the person's data."""
        return self.request(Right.ERASURE, **options)

    def restrict(self, **options: Unpack[Options]) -> str:
        """Ask to freeze the person's data."""
        return self.request(Right.RESTRICTION, **options)

    def port(self, **options: Unpack[Options]) -> str:
        """Ask for what the person provided, to take elsewhere."""
        return self.request(Right.PORTABILITY, **options)

    def object(self, **options: Unpack[Options]) -> str:
        """Object to processing: ``purposes=["marketing"]``, or all."""
        return self.request(Right.OBJECTION, **options)

    # Answers. --------------------------------------------------------------------------------------------------------

    def answers(self, timeout: float) -> Iterator[Answer]:
        """Answers as they come, for at most ``timeout`` seconds; acknowledged when the next one is asked for.

        An answer may come twice (same ``event_id``). Raises ``Unavailable`` when the broker is away.
        """
        try:
            for answer, message in self._arriving(timeout):
                yield answer
                self._acknowledge(message)
        except GeneratorExit:  # the caller has had enough, and is not there to be told that the broker is away
            with suppress(Unavailable):
                self._send_receipts()
            raise

    def wait(self, message_id: str, timeout: float = 60.0) -> Answer:
        """The final answer to one request: ``completed`` or ``refused``. Answers to others are kept.

        Raises ``TimeoutError`` when it did not come in time; wait again then.
        """
        others: list[tuple[Answer, Message | None]] = []
        try:
            for answer, message in self._arriving(timeout):
                self._acknowledge(message)
                if answer.message_id != message_id:
                    others.append((answer, None))
                elif answer.final:
                    return answer
        finally:
            self._arrived.extendleft(reversed(others))
            self._send_receipts()
        raise TimeoutError(f"no final answer to {message_id} came within {timeout:g} seconds")

    def _arriving(self, timeout: float) -> Iterator[tuple[Answer, Message | None]]:
        end = monotonic() + timeout
        while True:
            while self._arrived:
                yield self._arrived.popleft()
            self._send_receipts()
            left = end - monotonic()
            if left <= 0:
                return
            self._guard(partial(self._drain, left))

    def _acknowledge(self, message: Message | None) -> None:
        """Now, or with others: before anything is waited for."""
        if message is None:
            return
        if self._pgmq:
            self._guard(message.ack)
        elif self._receipts is not None and self._receipts.channel is message.channel:
            self._guard(partial(self._receipts.done, message.delivery_tag))
        # Otherwise it came by a connection that is gone: it will come again.

    def _send_receipts(self) -> None:
        if self._receipts is not None:
            self._guard(self._receipts.send)

    def close(self) -> None:
        """Let go of the connection, and of the reply queue unless it has a name of its own."""
        if self._connection is not None and not self._named and self._pgmq and self._consumer is not None:
            with suppress(Exception):
                self._consumer.cancel()
                self._connection.default_channel.queue_delete(self.reply_queue)
        self._drop()

    # The broker. -----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._connection is not None:
            return
        connection = Connection(
            self._url,
            transport=transport_of(self._url),
            transport_options=self._options,
            connect_timeout=self._timeout,
        )
        self._connection = connection
        channel = connection.default_channel
        exchange = Exchange(REQUESTS_EXCHANGE, type="topic", durable=True)
        intake = Queue(
            INTAKE_QUEUE, exchange, routing_key=INTAKE_BINDING, queue_arguments=dict(INTAKE_ARGUMENTS), durable=True
        )
        # Without the queue, a request published before the first intake process ever ran would be lost.
        intake(channel).declare()
        self._receipts = None if self._pgmq else Receipts(channel)
        self._consumer = Consumer(channel, queues=[self._reply_queue()(channel)], on_message=self._take)
        self._consumer.consume()

    def _reply_queue(self) -> Queue:
        if self._pgmq or self._named:
            return Queue(self.reply_queue, durable=True, queue_arguments={"x-queue-type": "quorum"})
        return Queue(self.reply_queue, durable=False, exclusive=True, auto_delete=True)

    def _drain(self, seconds: float) -> None:
        self._connect()
        if self._connection is not None:
            # A lost wake-up of the embedded broker must not cost more than a second.
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=min(seconds, 1.0))

    def _take(self, message: Message) -> None:
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        answer = read_answer(body, message.headers or {}, self._answer_secrets, datetime.now(UTC))
        if answer is None:
            _log.warning("a message on the reply queue is no answer of Habeas and was dropped")
            message.ack()
            return
        if self._receipts is not None:
            self._receipts.came(message.delivery_tag)
        self._arrived.append((answer, message))

    def _guard(self, act: Callable[[], _T], attempts: int = 1) -> _T:
        """Do something with the broker; whatever goes wrong, the connection is thrown away: its state is not known."""
        for left in reversed(range(attempts)):
            try:
                return act()
            except (OSError, KombuError, amqp.AMQPError, *self._driver_errors()) as error:
                self._drop()
                if not left:
                    raise Unavailable(f"the broker did not confirm ({type(error).__name__}); try again") from None
            except BaseException:
                self._drop()
                raise
        raise Unavailable

    def _driver_errors(self) -> tuple[type[Exception], ...]:
        if not self._pgmq:
            return ()
        import psycopg  # noqa: PLC0415 - needed for this broker alone
        import psycopg_pool  # noqa: PLC0415

        return (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._window, self._consumer, self._receipts = None, None, None
        # Unacknowledged answers are delivered again; those without a message are acknowledged and kept.
        self._arrived = deque((answer, message) for answer, message in self._arrived if message is None)
        if connection is None:
            return
        transport = connection.transport
        with suppress(Exception):
            connection.close()
        if self._pgmq:
            # kombu leaves the pool of a connection that never came about, which would go on trying for ever.
            with suppress(Exception):
                transport.close_connection(None)
