"""The connector: sessions, transactions and batches around what the siblings of this module do."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar

from connectors.contract import Action, Call, Connector, ConnectorError, Done, Outcome, Result, Results, Task
from connectors.sql import change, datamap, read, schema
from connectors.sql.checks import settings_faults
from connectors.sql.config import SqlConfig
from connectors.sql.datamap import DataMapFaults
from connectors.sql.engine import Database
from connectors.sql.erase import Erasure
from connectors.sql.errors import RowFault, SchemaDrift, wrapped
from connectors.sql.graph import build
from connectors.sql.schema import Catalogue
from connectors.sql.session import Session

Work = Callable[[Session, Sequence[Task]], Mapping[str, Result]]


class Sql(Connector[SqlConfig]):
    """An SQL database, read by its Fides dataset files.

    Construction reads the files and raises ``DataMapFaults`` with every fault in them and in the settings; the
    database is first touched by the first call.
    """

    Config: ClassVar[type[SqlConfig]] = SqlConfig
    batch: ClassVar[int] = 1000

    def __init__(self, system: str, config: SqlConfig) -> None:
        """Reads the data map; connects to nothing."""
        super().__init__(system, config)
        self._data = datamap.read(config.datasets, config.schema_name)
        self._graph = build(self._data, config)
        faults = settings_faults(config, self._graph)
        if faults:
            raise DataMapFaults(faults)
        self._database = Database(config)
        self._catalogue: Catalogue | None = None
        self._lock = threading.Lock()

    # What the planner needs to know. ---------------------------------------------------------------------------

    def supports(self) -> frozenset[Action]:
        """All but restriction and suppression where the settings do not say what to set."""
        missing = {Action.RESTRICT} if not self.config.restrict else set()
        return self.actions() - missing - ({Action.SUPPRESS} if not self.config.suppress else set())

    def categories(self) -> frozenset[str]:
        """The data categories of all fields."""
        return frozenset().union(*(c.categories for c in self._graph.collections.values()))

    def identified_by(self) -> frozenset[str]:
        """The identity types by which rows are found."""
        return frozenset(e.identity for e in self._graph.entries)

    def discovers(self) -> frozenset[str]:
        """The identity types of all fields."""
        return frozenset(f.identity for c in self._graph.collections.values() for f in c.fields.values() if f.identity)

    def erase_after(self) -> frozenset[str]:
        """The systems of other datasets that datasets and collections name in ``erase_after`` (or ``after``)."""
        named = {a.dataset for c in self._graph.collections.values() for a in c.erase_after} | self._data.after
        return frozenset(self.config.other_datasets[d] for d in named if d in self.config.other_datasets)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    # Actions. --------------------------------------------------------------------------------------------------

    def discover_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Identities in the people's rows."""
        return self._read(lambda s, t: read.discover(s, t, call), tasks, call.now)

    def access_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Every record, streamed into the sinks."""
        return self._read(lambda s, t: read.access(s, t, call), tasks, call.now)

    def rectify_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Corrections written over every field of their category."""
        return self._write(lambda s, t: change.rectify(s, t, call), tasks, call.now)

    def erase_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Rows masked or deleted; tasks of one scope in one transaction."""
        results: dict[str, Result] = {}
        for group in _by_scope(tasks):
            results |= self._write(lambda s, t: Erasure(s, t).erase(), group, call.now)
        return results

    def restrict_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """What ``restrict`` says is set."""
        return self._write(lambda s, t: change.apply(s, t, Action.RESTRICT), tasks, call.now)

    def suppress_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """What ``suppress`` says for the tasks' purposes is set."""
        return self._write(lambda s, t: change.apply(s, t, Action.SUPPRESS), tasks, call.now)

    def verify_many(self, tasks: Sequence[Task], call: Call) -> Results:
        """Look in the tables whether an earlier action holds."""
        results: dict[str, Result] = {}
        groups: dict[object, list[Task]] = defaultdict(list)
        for task in tasks:
            groups[task.options.get("of"), task.categories].append(task)
        for group in groups.values():
            work = self._look(group[0].options.get("of"), call)
            if work is None:
                note = "only erase, rectify, restrict and suppress can be verified; name one in the step's `of`"
                results |= {t.key: Done(Outcome.UNSUPPORTED, note=note) for t in group}
            else:
                results |= self._read(work, group, call.now)
        return results

    @staticmethod
    def _look(of: object, call: Call) -> Work | None:
        match of:
            case Action.ERASE:
                return lambda s, t: Erasure(s, t).verify()
            case Action.RECTIFY:
                return lambda s, t: change.verify_rectified(s, t, call)
            case Action.RESTRICT:
                return lambda s, t: change.verify_applied(s, t, Action.RESTRICT)
            case Action.SUPPRESS:
                return lambda s, t: change.verify_applied(s, t, Action.SUPPRESS)
            case _:
                return None

    # Transactions. ---------------------------------------------------------------------------------------------

    @contextmanager
    def _session(self, now: datetime) -> Iterator[Session]:
        """A session with the catalogue, which is read once and again after the schema was found changed."""
        with self._database.connect() as connection:
            with self._lock:
                known = self._catalogue
            if known is None:
                with wrapped("reading the catalogue"):
                    known = schema.read(connection, self._database.dialect, self._graph, self.config)
                with self._lock:
                    self._catalogue = known
            session = Session(connection, self._database.dialect, self.config, self._graph, known, now)
            try:
                with session.cleaning():
                    yield session
            except SchemaDrift:
                with self._lock:
                    self._catalogue = None
                raise

    def _read(self, work: Work, tasks: Sequence[Task], now: datetime) -> Mapping[str, Result]:
        with self._session(now) as session:
            return work(session, tasks)

    def _write(self, work: Work, tasks: Sequence[Task], now: datetime) -> Mapping[str, Result]:
        """Work in one transaction; if one person's rows forbid it, the others' are done without them."""
        try:
            with self._session(now) as session:
                results = work(session, tasks)
                with wrapped("committing"):
                    session.connection.commit()
                return results
        except RowFault as fault:
            if len(tasks) == 1:
                return {tasks[0].key: fault}
        middle = len(tasks) // 2
        results = dict(self._half(work, tasks[:middle], now))
        return results | dict(self._half(work, tasks[middle:], now))

    def _half(self, work: Work, tasks: Sequence[Task], now: datetime) -> Mapping[str, Result]:
        try:
            return self._write(work, tasks, now)
        except ConnectorError as error:
            # What the other half did is committed, so an error here is these tasks' alone.
            return dict.fromkeys((t.key for t in tasks), error)


def _by_scope(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    groups: dict[frozenset[str] | None, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.categories].append(task)
    yield from groups.values()
