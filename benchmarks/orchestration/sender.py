"""The upstream service: a process that publishes requests and waits for their completion events.

It answers to ``many N STEPS`` and ``one N STEPS``, where each request must report that many steps; to ``before N``,
which publishes and leaves the waiting to ``drain STEPS``; and to ``publish N``, which waits for nothing.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from benchmarks.programs import Found, answer
from orchestrator.core.vocabulary import EventKind
from orchestrator.publish import Answer, Options, Publisher

LOOK, BREATH = 0.1, 0.005
"""Seconds for which answers are taken as they come, and until they are looked for again, while many are coming."""
PATIENCE = 300.0
"""Seconds without any answer until it is given up."""
CHUNK = 500
"""Requests published before answers are looked at."""


def people(number: int) -> Iterator[Options]:
    """Requests of people nobody asked for before."""
    verified = {"method": "login", "verified_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    for _ in range(number):
        yield {"email": f"{uuid4().hex}@people.example", "verification": verified}


class Waiting:
    """Message ids whose completion is still to come, and whether the answers are right."""

    def __init__(self, steps: int) -> None:
        """``steps``: what each answer must report."""
        self.open: set[str] = set()
        self.wrong: list[str] = []
        self.early: set[str] = set()
        self.heard = 0.0
        """When the last answer came (``time.perf_counter``)."""
        self._steps = steps

    def asked(self, ids: list[str]) -> None:
        """These were published."""
        self.open.update(i for i in ids if i not in self.early)

    def hear(self, answer: Answer) -> None:
        """Take an answer."""
        if not answer.final:
            return
        self.heard = time.perf_counter()
        if answer.kind is not EventKind.COMPLETED or answer.data["resolution"] != "completed":
            self.wrong.append(f"{answer.kind}: {answer.data.get('resolution', '')}")
        elif sum(len(s["steps"]) for s in answer.data["systems"]) != self._steps:
            self.wrong.append("steps are missing")
        if answer.message_id in self.open:
            self.open.remove(answer.message_id)
        else:
            self.early.add(answer.message_id)


def publish(publisher: Publisher, requests: int) -> Found:
    """Publish that many."""
    return {"wrong": [], "published": len(publisher.request_many("erasure", people(requests)))}


def many(publisher: Publisher, requests: int, steps: int) -> Found:
    """Publish that many; how long until the last one's completion was received."""
    waiting = Waiting(steps)
    cpu, began = time.process_time(), time.perf_counter()
    for start in range(0, requests, CHUNK):
        waiting.asked(publisher.request_many("erasure", people(min(CHUNK, requests - start))))
        for said in publisher.answers(timeout=0):
            waiting.hear(said)
    published = time.perf_counter() - began
    _await(publisher, waiting, LOOK, BREATH)
    seconds = waiting.heard - began
    wrong = waiting.wrong[:3] + [f"{len(waiting.open)} never completed"] * bool(waiting.open)
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "published": published, "cpu": cpu, "wrong": wrong}


class Before:
    """Publishes, and waits when asked to."""

    def __init__(self, publisher: Publisher) -> None:
        """Nothing published yet."""
        self._publisher, self._ids = publisher, list[str]()

    def publish(self, requests: int) -> Found:
        """Publish that many."""
        for start in range(0, requests, CHUNK):
            self._ids += self._publisher.request_many("erasure", people(min(CHUNK, requests - start)))
        return {"wrong": []}

    def drain(self, steps: int) -> Found:
        """Wait until all of them are completed."""
        waiting = Waiting(steps)
        waiting.asked(self._ids)
        self._ids = []
        _await(self._publisher, waiting, LOOK, BREATH)
        return {"wrong": waiting.wrong[:3] + [f"{len(waiting.open)} never completed"] * bool(waiting.open)}


def _await(publisher: Publisher, waiting: Waiting, look: float, breath: float) -> None:
    """Until all are there, and to the end of a look.

    An answer that is left in the middle of one stays open, and those behind it then need an acknowledgement each.
    """
    until = time.monotonic() + PATIENCE
    while waiting.open and time.monotonic() < until:
        for said in publisher.answers(timeout=look):
            waiting.hear(said)
            until = time.monotonic() + PATIENCE
        time.sleep(breath)


def one_by_one(publisher: Publisher, requests: int, steps: int) -> Found:
    """One request at a time; milliseconds from before its publishing until its completion was received."""
    times, wrong = [], []
    for options in people(requests):
        waiting = Waiting(steps)
        began = time.perf_counter()
        message = publisher.request("erasure", **options)
        waiting.asked([message])
        with suppress(TimeoutError):
            waiting.hear(publisher.wait(message, timeout=PATIENCE))
        times.append((time.perf_counter() - began) * 1000)
        wrong += waiting.wrong + ["never completed"] * bool(waiting.open)
    return {"milliseconds": times, "wrong": wrong[:3]}


def main() -> None:
    """Do what is told."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # as Habeas' own processes: a service that sends thousands would
    url, source = os.environ["HABEAS_BROKER_URL"], os.environ["BENCHMARK_SOURCE"]
    with Publisher(
        url,
        source=source,
        secret=os.environ["BENCHMARK_SECRET"],
        replies="benchmark_answers",
        answer_secrets=[os.environ["HABEAS_EVENT_SECRET"]],
        timeout=60,
    ) as publisher:
        before = Before(publisher)
        answer(
            {
                "before": before.publish,
                "drain": before.drain,
                "publish": partial(publish, publisher),
                "many": partial(many, publisher),
                "one": partial(one_by_one, publisher),
            }
        )


if __name__ == "__main__":
    main()
