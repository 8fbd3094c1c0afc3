"""Publishing in windows: many messages on their way before the first confirmation is awaited.

py-amqp waits for each confirmation in turn, which makes every message cost a round trip to the broker's disk.
"""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from kombu.messaging import Producer


class NotConfirmed(ConnectionError):
    """The broker did not confirm in time, or refused: throw the connection away and publish the window again."""


class Window:
    """Counts what was published against what was confirmed, on one channel of its own.

    Without ``confirms`` (pgmq) each publish is a committed transaction: it is confirmed when it returns.
    """

    def __init__(self, channel: Any, *, confirms: bool) -> None:
        """Takes the channel over: it can't be used for publishing in another way afterwards."""
        self._channel, self._confirms = channel, confirms
        self._producer = Producer(channel, auto_declare=False)
        self._sent = 0
        self._open: set[int] = set()
        self._refused = False
        if confirms:
            channel.basic_publish = channel._basic_publish  # noqa: SLF001 - the driver has no public way
            channel.confirm_select()
            channel.events["basic_ack"].add(self.acknowledged)
            channel.events["basic_nack"].add(self.refused)

    def publish(self, body: str | bytes, **properties: Any) -> None:
        """Publish one message, without waiting. ``properties``: those of ``kombu.Producer.publish``."""
        self._producer.publish(body, **properties)
        if self._confirms:
            self._sent += 1  # the broker numbers messages of a channel in the same way
            self._open.add(self._sent)

    def acknowledged(self, tag: int, multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        """The broker confirmed."""
        if multiple:
            self._open = {t for t in self._open if t > tag}
        else:
            self._open.discard(tag)

    def refused(self, _tag: int, _multiple: bool) -> None:  # noqa: FBT001 - called so by the driver
        """The broker refused."""
        self._refused = True

    def await_all(self, timeout: float) -> None:
        """Wait until everything is confirmed; ``timeout``: seconds of silence. Raises ``NotConfirmed``."""
        while self._open and not self._refused:
            try:
                self._channel.connection.drain_events(timeout=timeout)
            except TimeoutError as error:
                raise NotConfirmed("the broker did not confirm in time") from error
        if self._refused:
            raise NotConfirmed("the broker refused a message")
