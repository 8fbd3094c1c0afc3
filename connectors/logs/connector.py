"""The ``logs`` connector: rotated log files, searched and rewritten for a whole batch of people in one pass."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from connectors.contract import Action, Call, Connector, Done, Fatal, Identity, Outcome, Pending, Result, Results, Task
from connectors.logs.batch import Batch
from connectors.logs.config import LogsConfig
from connectors.logs.files import LogFile, log_files
from connectors.logs.formats import Span
from connectors.logs.journal import Journal
from connectors.logs.lock import exclusive
from connectors.logs.passes import erase, find
from connectors.logs.rewrite import clean

__all__ = ["Logs"]

WAITING_ON: Final = "rotation of the live log file"
MOST_FOUND: Final = 1000
"""Identities that discovery reports for one person at most."""
HASHED_NOTE: Final = "hashed identities are not searched for in log lines"


class Logs(Connector[LogsConfig]):
    """Finds and erases people's lines in rotated log files: JSON lines, combined, or any regular expression."""

    Config = LogsConfig
    batch: ClassVar[int] = 1000

    def supports(self) -> frozenset[Action]:
        """Discovery only where it is configured."""
        return self.actions() if self.config.discover else self.actions() - {Action.DISCOVER}

    def categories(self) -> frozenset[str]:
        """The categories of all personal fields."""
        return frozenset(c for s in self.config.sources for f in s.fields.values() for c in f.kinds())

    def identified_by(self) -> frozenset[str]:
        """The identity types that select lines."""
        return self.config.selecting()

    def discovers(self) -> frozenset[str]:
        """The identity types that are configured to be discovered."""
        return frozenset(self.config.discover)

    def discover_many(self, tasks: Sequence[Task], call: Call) -> Results:  # noqa: ARG002 - the contract's signature
        """Find the configured identity types on each person's lines (a thousand values each at most)."""
        batch = Batch(self.config, tasks)
        found: list[dict[Identity, None]] = [{} for _ in tasks]
        lock = threading.Lock()

        def visit(file: LogFile, _number: int, holding: Mapping[int, list[Span]], spans: Sequence[Span]) -> None:
            fields = batch.source(file).fields
            for span in spans:
                kind = fields[span.name].identity if span.name in fields else None
                if kind in self.config.discover and kind and span.text and not batch.erased(span):
                    with lock:
                        for task in holding:
                            if len(found[task]) < MOST_FOUND:
                                found[task][Identity(kind, _clean(span.text))] = None

        tally = find(batch, visit)
        return self._each(
            batch,
            tally.lines,
            lambda task, lines, note: Done(
                Outcome.EXECUTED, lines, found=tuple(found[task]), evidence=tally.evidence(), note=note
            ),
        )

    def access_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Write each person's lines to their sink: file, line number, and the fields in scope."""
        batch = Batch(self.config, tasks)
        sinks = [call.sink(task) for task in tasks]
        lock = threading.Lock()

        def visit(file: LogFile, number: int, holding: Mapping[int, list[Span]], spans: Sequence[Span]) -> None:
            source = batch.source(file)
            context = [span for span in spans if span.name in source.context and span.name not in source.fields]
            for task, fields in holding.items():
                record = _record(file.name, number, [*context, *fields])
                with lock:
                    sinks[task].write(source.name, record)

        tally = find(batch, visit)
        return self._each(
            batch,
            tally.lines,
            lambda _, lines, note: Done(Outcome.EXECUTED, lines, evidence=tally.evidence(), note=note),
        )

    def erase_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Remove or redact each person's lines; ``Pending`` where a file with some is still written to."""
        batch = Batch(self.config, tasks)
        with exclusive(self.config.root, self.config.lock_wait):
            files, unseen = log_files(self.config.root, self.config.sources)
            journal = Journal(self.config.root, {file.inode for file in files}, call.now, whole=not unseen)
            clean(self.config.root)
            tally = erase(batch, journal)
            erased = {task: journal.lines(tasks[task].key) for task in range(len(tasks))}
        lines = Counter({(task, source): n for task, counts in erased.items() for source, n in counts.items()})
        waiting = {task for task, _ in tally.live}

        def result(task: int, lines: Mapping[str, int], note: str) -> Result:
            if task in waiting:
                return Pending({"erased": dict(lines)}, self.config.poll_after, WAITING_ON)
            return Done(Outcome.EXECUTED, lines, evidence=tally.evidence(), note=note)

        return self._each(batch, lines, result, waiting)

    def verify_many(self, tasks: Sequence[Task], call: Call) -> Results:  # noqa: ARG002 - the contract's signature
        """Look whether any line in scope remains; live files are looked at, too."""
        batch = Batch(self.config, tasks)
        tally = find(batch)

        def result(_: int, lines: Mapping[str, int], note: str) -> Result:  # noqa: ARG001 - as the others
            left = ", ".join(f"{count} in source {source!r}" for source, count in sorted(lines.items()))
            return Fatal(
                f"log lines remain that should be gone: {left}; erase again, and look whether an older file came back"
            )

        results = dict(self._each(batch, tally.lines, result))
        for key, one in results.items():
            if isinstance(one, Done) and one.outcome is Outcome.NO_MATCH:
                results[key] = Done(Outcome.VERIFIED, evidence=tally.evidence(), note=one.note)
        return results

    def _each(
        self,
        batch: Batch,
        lines: Counter[tuple[int, str]],
        matched: Callable[[int, dict[str, int], str], Result],
        also: frozenset[int] | set[int] = frozenset(),
    ) -> Results:
        """A result for every task: ``matched`` says it for those with lines (and those of ``also``)."""
        by_task: dict[int, dict[str, int]] = {task: {} for task in also}
        for (index, source), count in lines.items():
            by_task.setdefault(index, {})[source] = count
        results: dict[str, Result] = {}
        for index, task in enumerate(batch.tasks):
            hashed = any(i.type in self.identified_by() and i.format != "raw" for i in task.identities)
            note = HASHED_NOTE if hashed else ""
            if index in by_task:
                results[task.key] = matched(index, by_task[index], note)
            else:
                results[task.key] = self._unmatched(batch, index, note)
        return results

    def _unmatched(self, batch: Batch, index: int, note: str) -> Done:
        kinds = sorted(self.identified_by())
        if not batch.in_scope(index):
            return Done(Outcome.SKIPPED, note="no field of these logs is in the request's scope")
        if not any(batch.tasks[index].values(kind) for kind in kinds):
            return Done(
                Outcome.UNSUPPORTED, note=note or f"these logs are searched by {', '.join(kinds)}, and none was given"
            )
        return Done(Outcome.NO_MATCH, note=note)


def _record(file: str, number: int, spans: Sequence[Span]) -> dict[str, Any]:
    record: dict[str, Any] = {"file": file, "line": number}
    for span in spans:
        name = f"field.{span.name}" if span.name in ("file", "line") else span.name
        record[name] = _clean(span.value) if isinstance(span.value, str) else span.value
    return record


def _clean(text: str) -> str:
    """Text that every encoder takes: bytes that were no UTF-8 become replacement characters."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
