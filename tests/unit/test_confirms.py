"""One word for many messages never covers one that is still being worked on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import confirms


class Broker:
    """Keeps the account that RabbitMQ keeps for a channel."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.words = 0

    def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
        self.words += 1
        assert tag in self.open, "RabbitMQ closes the channel over an unknown tag"
        self.open -= {t for t in self.open if t <= tag} if multiple else {tag}


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=150), st.integers(1, 40))
def test_exactly_what_is_done_with_is_acknowledged_in_whatever_order_it_is_done(course, together):
    broker = Broker()
    receipts = confirms.Receipts(broker, together)
    at_work: list[int] = []
    for tag, (number, sends) in enumerate(course, 1):
        broker.open.add(tag)
        receipts.came(tag)
        at_work.append(tag)
        if number < len(at_work):
            receipts.done(at_work.pop(number))
        if sends:
            receipts.send()
            assert broker.open == set(at_work)
        assert set(at_work) <= broker.open
        assert len(broker.open) < len(at_work) + together
    receipts.send()
    assert broker.open == set(at_work)


def test_many_that_are_done_in_order_cost_one_word():
    broker = Broker()
    receipts = confirms.Receipts(broker, 1000)
    for tag in range(1, 501):
        broker.open.add(tag)
        receipts.came(tag)
        receipts.done(tag)
    receipts.send()
    receipts.send()
    assert (broker.open, broker.words) == (set(), 1)
