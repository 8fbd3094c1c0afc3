"""Publishing in windows: many messages on their way before the first confirmation is awaited.

py-amqp waits for each confirmation in turn, which makes every message cost a round trip to the broker's disk; and it
sends each in a packet of its own, which costs the broker more than the message. A window corks the socket meanwhile.
"""

# kombu has annotations in places only.
# mypy: allow-untyped-calls

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class NotConfirmed(ConnectionError):
    """The broker did not confirm in time, or refused: throw the connection away and publish the window again."""


class Window:
    """Counts what was published against what was confirmed, on one channel of its own.

    Without ``confirms`` (pgmq) each publish is a committed transaction: it is confirmed when it returns.
    """

    def __init__(self, channel: Any, *, confirms: bool) -> None:
        """Takes the channel over: it can't be used for publishing in another way afterwards."""
        self._channel, self._confirms = channel, confirms
        self._corked = False
        self._sent = 0
        self._open: set[int] = set()
        self._refused = False
        if confirms:
            channel.basic_publish = channel._basic_publish  # noqa: SLF001 - the driver has no public way
            channel.confirm_select()
            channel.events["basic_ack"].add(self.acknowledged)
            channel.events["basic_nack"].add(self.refused)

    def publish(
        self,
        body: str | bytes,
        *,
        exchange: str,
        routing_key: str,
        headers: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        """Publish one message, without waiting; ``properties``: its others, as AMQP names them.

        ``mandatory``: if it can't be routed it comes back as an error. ``kombu.Producer`` would do the same at twice
        the cost: it declares, serialises and compresses, and there is nothing of that to do.
        """
        self._cork(on=True)
        message = self._channel.prepare_message(
            body,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            properties=properties,
        )
        how = {"mandatory": True} if mandatory else {}
        self._channel.basic_publish(message, exchange=exchange, routing_key=routing_key, **how)
        if self._confirms:
            self._sent += 1  # the broker numbers messages of a channel in the same way
            self._open.add(self._sent)

    def flush(self) -> None:
        """Send what the kernel still holds back."""
        self._cork(on=False)

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
        self.flush()
        while self._open and not self._refused:
            try:
                self._channel.connection.drain_events(timeout=timeout)
            except TimeoutError as error:
                raise NotConfirmed("the broker did not confirm in time") from error
        if self._refused:
            raise NotConfirmed("the broker refused a message")

    def _cork(self, *, on: bool) -> None:
        """Have the kernel fill packets before it sends them, or send what is left."""
        if not self._confirms or self._corked is on or not hasattr(socket, "TCP_CORK"):
            return
        self._corked = on
        with suppress(OSError, AttributeError):  # a dead connection is found out by whoever waits
            self._channel.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))
