"""Publishing in windows, and acknowledging in windows: many messages on their way before one word for all is awaited.

py-amqp waits for each confirmation in turn, which makes every message cost a round trip to the broker's disk; and an
acknowledgement for each message costs the broker as much as the message.
"""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.wire import Writer

TOGETHER = 200
"""Messages that one word acknowledges."""


class NotConfirmed(ConnectionError):
    """The broker did not confirm in time, or refused: throw the connection away and publish the window again."""


class Window(Protocol):
    """Publishes, and waits for the confirmation of all at once. Any error: throw the connection away."""

    def content(self, body: bytes, properties: Mapping[str, Any]) -> Any:
        """A message, to be published once or more; ``properties``: as AMQP names them, and ``headers``."""

    def publish(self, content: Any, exchange: str, routing_key: str, *, mandatory: bool = False) -> None:
        """Publish, without waiting. ``mandatory``: if it can't be routed it comes back as an error."""

    def await_all(self, timeout: float) -> None:
        """Wait until everything is confirmed; ``timeout``: seconds of silence. Raises ``NotConfirmed``."""


def window_on(channel: Any, *, confirms: bool) -> Window:
    """A window that takes the channel over: it can't be used for publishing in another way afterwards.

    ``confirms``: the broker is RabbitMQ, the transport ``wire.transport_of``'s. Without (pgmq) each publish is a
    committed transaction, confirmed when it returns.
    """
    return _Confirmed(channel) if confirms else _Committed(channel)


class _Confirmed:
    """Counts what was published against what was confirmed."""

    def __init__(self, channel: Any) -> None:
        self._channel, self._writer = channel, Writer(channel)
        self.content = self._writer.content
        self._sent = 0
        self._open: set[int] = set()
        self._all_before = 0
        """All with lower numbers are confirmed."""
        self._refused = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._acknowledged)
        channel.events["basic_nack"].add(self._not_taken)

    def publish(self, content: bytes, exchange: str, routing_key: str, *, mandatory: bool = False) -> None:
        self._channel.connection.hold()
        self._writer.publish(content, exchange, routing_key, mandatory=mandatory)
        self._sent += 1  # the broker numbers messages of a channel in the same way
        self._open.add(self._sent)

    def await_all(self, timeout: float) -> None:
        self._channel.connection.release()
        while self._open and not self._refused:
            try:
                self._channel.connection.drain_events(timeout=timeout)
            except TimeoutError as error:
                raise NotConfirmed("the broker did not confirm in time") from error
        if self._refused:
            raise NotConfirmed("the broker refused a message")

    def _acknowledged(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        self._open.discard(tag)
        if multiple:
            self._open.difference_update(range(self._all_before, tag))
            self._all_before = tag

    def _not_taken(self, _tag: int, _multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        self._refused = True


class _Committed:
    """Publishes one by one."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def content(self, body: bytes, properties: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return body.decode(), dict(properties)

    def publish(
        self, content: tuple[str, dict[str, Any]], exchange: str, routing_key: str, *, mandatory: bool = False
    ) -> None:
        # ``kombu.Producer`` would do the same at twice the cost, for it declares, serialises and compresses.
        del mandatory  # kombu's transport knows nothing of it
        body, properties = content[0], dict(content[1])
        message = self._channel.prepare_message(
            body,
            content_type=properties.pop("content_type", None),
            content_encoding=properties.pop("content_encoding", None),
            headers=dict(properties.pop("headers", {})),
            properties=properties,
        )
        self._channel.basic_publish(message, exchange=exchange, routing_key=routing_key)

    def await_all(self, timeout: float) -> None:
        """Nothing is open."""


class Receipts:
    """Acknowledges the messages of one RabbitMQ channel in groups: one word for all up to the last done with."""

    def __init__(self, channel: Any, together: int = TOGETHER) -> None:
        """Of messages that came on this channel; ``together``: how many may be done with before the broker is told."""
        self.channel, self._together = channel, together
        self._open: set[int] = set()
        self._done: list[int] = []

    def came(self, tag: int) -> None:
        """A message was delivered under this tag."""
        self._open.add(tag)

    def done(self, tag: int) -> None:
        """It is done with, and may be acknowledged, now or a little later."""
        self._open.discard(tag)
        self._done.append(tag)
        if len(self._done) >= self._together:
            self.send()

    def send(self) -> None:
        """Acknowledge all that are done with."""
        done, self._done = self._done, []
        if not done:
            return
        last = max(done)
        until = min(self._open, default=last + 1)  # one before that is open: no word for all may cover it
        if together := [tag for tag in done if tag < until]:
            self.channel.basic_ack(max(together), multiple=True)
        for tag in done:
            if tag > until:
                self.channel.basic_ack(tag)
