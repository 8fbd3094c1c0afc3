"""The tables. ``migrations/`` builds exactly these; a test compares the two.

No table holds personal data in the clear: identities, payloads and gathered data are sealed under the request's key
(``request_secret``), and what is kept beyond it is pseudonymous.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

# A hundredth, where PostgreSQL would let a fifth of a table be dead before it vacuums: those who ask for what is open,
# or not yet published, come past the index entries of everything that no longer is.
metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(column_0_label)s",
    }
)


def _moment(name: str, *, nullable: bool = False, default: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if default else None)


inbox = Table(
    "inbox",
    metadata,
    Column("source", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column(
        "digest",
        LargeBinary,
        nullable=False,
        comment="SHA-256 of the facts: same id, same ask",
    ),
    Column("request_id", Uuid, nullable=False),
    _moment("received_at", default=True),
    comment="Every message that became a request: what makes a redelivery harmless",
)

request = Table(
    "request",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: in order of arrival"),
    Column("right", Text, nullable=False),
    Column("regulation", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("workflow_version", Integer, nullable=False),
    Column("keep_days", Integer, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("stopping", Text),
    Column("stop_reason", Text, nullable=False, server_default=""),
    Column("resolution", Text, comment="null while open"),
    Column("reply_to", Text),
    Column("correlation_id", Text),
    Column("traceparent", Text),
    _moment("received_at"),
    _moment("deadline"),
    _moment("closed_at", nullable=True),
    _moment("shred_at", nullable=True),
    _moment("fold_at", nullable=True),
    Column("audit_seq", Integer, nullable=False, server_default=text("0")),
    Column("audit_head", LargeBinary, nullable=False),
    Index("request_open_deadline", "deadline", postgresql_where=text("resolution IS NULL")),
    Index("request_shred_at", "shred_at", postgresql_where=text("shred_at IS NOT NULL")),
    Index("request_fold_at", "fold_at", postgresql_where=text("fold_at IS NOT NULL")),
    Index("request_closed_at", "closed_at", postgresql_where=text("closed_at IS NOT NULL")),
    postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.01"},
)

request_secret = Table(
    "request_secret",
    metadata,
    Column("request_id", Uuid, ForeignKey("request.id"), primary_key=True),
    Column("wrapped_key", LargeBinary, nullable=False, comment="deleting the row shreds all that it seals"),
    Column("payload", LargeBinary, nullable=False, comment="sealed: identities, corrections, purposes, verification"),
)

finding = Table(
    "finding",
    metadata,
    Column("request_id", Uuid, ForeignKey("request.id"), primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True),
    Column("sealed", LargeBinary, nullable=False, comment="sealed: identities that a discover step found"),
)

step = Table(
    "step",
    metadata,
    # No foreign key: steps are written by the transaction that writes their request, and neither is ever deleted.
    Column("request_id", Uuid, primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True),
    Column("name", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("needs", ARRAY(SmallInteger), nullable=False),
    Column("options", JSONB, nullable=False),
    _moment("deadline"),
    Column("rank", DateTime(timezone=True), nullable=False, comment="order of claiming: deadline and fair turn"),
    _moment("due"),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("token", Uuid),
    _moment("lease_until", nullable=True),
    Column("handle", JSONB),
    Column("signal", JSONB),
    Column("parked_for", Text),
    Column("waiting_on", Text, nullable=False, server_default=""),
    Column("failure", Text),
    Column("error", Text, nullable=False, server_default=""),
    Column("result", JSONB),
    _moment("changed_at", default=True),
    # The four questions asked of the hot table, each by an index that holds nothing but the answer.
    # What is included lets the figures on call be read from the index alone, however long the queues are.
    Index(
        "step_claim",
        "system",
        "rank",
        "request_id",
        "ordinal",
        postgresql_include=["changed_at"],
        postgresql_where=text("state = 'ready' AND crashes = 0"),
    ),
    # What was lost before is looked for with every claim, and there is hardly ever any: it must cost nothing to know.
    # The two share no row, so that no plan can look for it among all that is ready.
    Index("step_lost", "system", "rank", postgresql_where=text("state = 'ready' AND crashes > 0")),
    # The steps of a claim have one end of their lease, and PostgreSQL keeps equal entries as one (not where a column is
    # included): the clock comes past those that are dead until the next vacuum.
    Index("step_lease", "lease_until", "system", postgresql_where=text("state = 'running'")),
    Index("step_timer", "due", postgresql_where=text("state = 'parked'")),
    Index("step_attention", "system", "request_id", "ordinal", postgresql_where=text("state = 'attention'")),
    postgresql_with={
        "fillfactor": "60",
        "autovacuum_vacuum_scale_factor": "0.01",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_cost_delay": "0",
        # PostgreSQL leaves dead index entries alone until a fiftieth of the pages has some: of a table of millions
        # that is more than ever is at hand, and every claim and every look for lost leases comes past them.
        "vacuum_index_cleanup": "on",
    },
)

artifact = Table(
    "artifact",
    metadata,
    Column("request_id", Uuid, ForeignKey("request.id"), primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True),
    Column("system", Text, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 hex of the sealed bytes"),
    Column("inline", LargeBinary, comment="sealed, when small"),
    Column("location", Text, comment="sealed file below the artifacts folder, when not"),
    _moment("created_at", default=True),
    Index("artifact_location", "location", postgresql_where=text("location IS NOT NULL")),
)

audit = Table(
    "audit",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    Column("seq", Integer, primary_key=True),
    _moment("at"),
    Column("what", Text, nullable=False),
    Column("ordinal", SmallInteger),
    Column("facts", JSONB, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 over the previous hash and this entry"),
    # Summarised as it grows: what no vacuum has come to yet would be read with every look at the latest entries.
    Index("audit_at", "at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
    comment="Append only: what was done, when, by whom, with what outcome",
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    _moment("at"),
    Column("facts", JSONB, nullable=False, comment="the heads it covers, as one digest, and the checkpoint before"),
    Column("signature", LargeBinary, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("request_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("reply_to", Text),
    Column("correlation_id", Text),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _moment("created_at", default=True),
    Index("outbox_request", "request_id", "id"),
    Index("outbox_created_at", "created_at"),
    postgresql_with={"autovacuum_vacuum_scale_factor": "0.01"},
    comment="What upstream services are told; never changed, for each row has the whole event",
)

unpublished = Table(
    "unpublished",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="of the event in outbox"),
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0.01",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_cost_delay": "0",
        "vacuum_index_cleanup": "on",
    },
    comment="Events that the broker has not confirmed yet: written with them, deleted then",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", Uuid, primary_key=True),
    _moment("at", default=True),
    Column("source", Text),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("field", Text, nullable=False, server_default=""),
    Column("bytes", Integer, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="sealed: body, headers and properties as they came"),
    _moment("replayed_at", nullable=True),
    Index("quarantine_at", "at"),
    Index("quarantine_waiting", "reason", postgresql_where=text("replayed_at IS NULL")),
)

tally = Table(
    "tally",
    metadata,
    Column("right", Text, primary_key=True),
    Column("what", Text, primary_key=True, comment="admitted, or how requests closed"),
    Column("shard", SmallInteger, primary_key=True, comment="so that no two workers wait for one row; to be summed"),
    Column("n", BigInteger, nullable=False),
    comment="Requests counted as they come and go, so that nobody has to count the rows",
    postgresql_with={"fillfactor": "50"},
)

parked = Table(
    "parked",
    metadata,
    Column("system", Text, primary_key=True),
    Column("shard", SmallInteger, primary_key=True, comment="so that no two workers wait for one row; to be summed"),
    Column("n", BigInteger, nullable=False),
    comment="Parked steps counted as they come and go: there may be millions, and nobody has to count the rows",
    postgresql_with={"fillfactor": "50"},
)

ledger = Table(
    "ledger",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="keyed hash of an erased identity"),
    Column("request_id", Uuid, primary_key=True),
    _moment("at", default=True),
    comment="Who was erased, for those who hold the key and already know the identity",
)

hold = Table(
    "hold",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("hash", LargeBinary, nullable=False, comment="keyed hash of an identity under legal hold"),
    Column("case_name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("at", default=True),
    _moment("released_at", nullable=True),
    Index("hold_hash", "hash", postgresql_where=text("released_at IS NULL")),
)

turn = Table(
    "turn",
    metadata,
    Column("source", Text, primary_key=True),
    _moment("taken_until"),
    comment="How far each source has used up its turns: what keeps a flood from starving the others",
)

connector_state = Table(
    "connector_state",
    metadata,
    Column("system", Text, primary_key=True),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("paused_by", Text, nullable=False, server_default=""),
    Column("paused_reason", Text, nullable=False, server_default=""),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="steps failing one after another"),
    _moment("breaker_until", nullable=True),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("tokens", Double, nullable=False, server_default=text("0")),
    _moment("tokens_at", default=True),
    Column(
        "permits",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="token of a claim: steps that have not begun, and seconds after tokens_at while they may",
    ),
    Column("fenced", BigInteger, nullable=False, server_default=text("0"), comment="late settles that changed nothing"),
)
