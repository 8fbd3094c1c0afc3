"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=True),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 over the previous hash and this entry"),
        sa.PrimaryKeyConstraint("request_id", "seq", name=op.f("audit_pkey")),
        comment="Append only: what was done, when, by whom, with what outcome",
    )
    op.create_index(
        "audit_at", "audit", ["at"], unique=False, postgresql_using="brin", postgresql_with={"autosummarize": "on"}
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "facts",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="the heads it covers, as one digest, and the checkpoint before",
        ),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_checkpoint_pkey")),
    )
    op.create_table(
        "connector_state",
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("paused_by", sa.Text(), server_default="", nullable=False),
        sa.Column("paused_reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "failures",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="steps failing one after another",
        ),
        sa.Column("breaker_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("tokens", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("tokens_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "permits",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="token of a claim: steps that have not begun, and seconds after tokens_at while they may",
        ),
        sa.Column(
            "fenced",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="late settles that changed nothing",
        ),
        sa.PrimaryKeyConstraint("system", name=op.f("connector_state_pkey")),
    )
    op.create_table(
        "hold",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="keyed hash of an identity under legal hold"),
        sa.Column("case_name", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("hold_pkey")),
    )
    op.create_index("hold_hash", "hold", ["hash"], unique=False, postgresql_where=sa.text("released_at IS NULL"))
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the facts: same id, same ask"),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("source", "message_id", name=op.f("inbox_pkey")),
        comment="Every message that became a request: what makes a redelivery harmless",
    )
    op.create_table(
        "ledger",
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="keyed hash of an erased identity"),
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("hash", "request_id", name=op.f("ledger_pkey")),
        comment="Who was erased, for those who hold the key and already know the identity",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("routing_key", sa.Text(), nullable=False),
        sa.Column("reply_to", sa.Text(), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.01"},
        comment="What upstream services are told; never changed, for each row has the whole event",
    )
    op.create_index("outbox_created_at", "outbox", ["created_at"], unique=False)
    op.create_index("outbox_request", "outbox", ["request_id", "id"], unique=False)
    op.create_table(
        "unpublished",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False, comment="of the event in outbox"),
        sa.PrimaryKeyConstraint("id", name=op.f("unpublished_pkey")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
            "vacuum_index_cleanup": "on",
        },
        comment="Events that the broker has not confirmed yet: written with them, deleted then",
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), server_default="", nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column(
            "sealed", sa.LargeBinary(), nullable=False, comment="sealed: body, headers and properties as they came"
        ),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("quarantine_pkey")),
    )
    op.create_index("quarantine_at", "quarantine", ["at"], unique=False)
    op.create_index(
        "quarantine_waiting", "quarantine", ["reason"], unique=False, postgresql_where=sa.text("replayed_at IS NULL")
    )
    op.create_table(
        "request",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: in order of arrival"),
        sa.Column("right", sa.Text(), nullable=False),
        sa.Column("regulation", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("workflow_version", sa.Integer(), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("stopping", sa.Text(), nullable=True),
        sa.Column("stop_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("resolution", sa.Text(), nullable=True, comment="null while open"),
        sa.Column("reply_to", sa.Text(), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("shred_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fold_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("audit_seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("audit_head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("request_pkey")),
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.01"},
    )
    op.create_index(
        "request_closed_at", "request", ["closed_at"], unique=False, postgresql_where=sa.text("closed_at IS NOT NULL")
    )
    op.create_index(
        "request_fold_at", "request", ["fold_at"], unique=False, postgresql_where=sa.text("fold_at IS NOT NULL")
    )
    op.create_index(
        "request_open_deadline", "request", ["deadline"], unique=False, postgresql_where=sa.text("resolution IS NULL")
    )
    op.create_index(
        "request_shred_at", "request", ["shred_at"], unique=False, postgresql_where=sa.text("shred_at IS NOT NULL")
    )
    op.create_table(
        "tally",
        sa.Column("right", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False, comment="admitted, or how requests closed"),
        sa.Column(
            "shard", sa.SmallInteger(), nullable=False, comment="so that no two workers wait for one row; to be summed"
        ),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("right", "what", "shard", name=op.f("tally_pkey")),
        comment="Requests counted as they come and go, so that nobody has to count the rows",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "parked",
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column(
            "shard", sa.SmallInteger(), nullable=False, comment="so that no two workers wait for one row; to be summed"
        ),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("system", "shard", name=op.f("parked_pkey")),
        comment="Parked steps counted as they come and go: there may be millions, and nobody has to count the rows",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "turn",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("taken_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("turn_pkey")),
        comment="How far each source has used up its turns: what keeps a flood from starving the others",
    )
    op.create_table(
        "artifact",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 hex of the sealed bytes"),
        sa.Column("inline", sa.LargeBinary(), nullable=True, comment="sealed, when small"),
        sa.Column("location", sa.Text(), nullable=True, comment="sealed file below the artifacts folder, when not"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("artifact_request_id_fkey")),
        sa.PrimaryKeyConstraint("request_id", "ordinal", name=op.f("artifact_pkey")),
    )
    op.create_index(
        "artifact_location", "artifact", ["location"], unique=False, postgresql_where=sa.text("location IS NOT NULL")
    )
    op.create_table(
        "finding",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="sealed: identities that a discover step found"),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("finding_request_id_fkey")),
        sa.PrimaryKeyConstraint("request_id", "ordinal", name=op.f("finding_pkey")),
    )
    op.create_table(
        "request_secret",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False, comment="deleting the row shreds all that it seals"),
        sa.Column(
            "payload",
            sa.LargeBinary(),
            nullable=False,
            comment="sealed: identities, corrections, purposes, verification",
        ),
        sa.ForeignKeyConstraint(["request_id"], ["request.id"], name=op.f("request_secret_request_id_fkey")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("request_secret_pkey")),
    )
    op.create_table(
        "step",
        sa.Column("request_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("system", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("needs", postgresql.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "rank", sa.DateTime(timezone=True), nullable=False, comment="order of claiming: deadline and fair turn"
        ),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("handle", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("signal", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("parked_for", sa.Text(), nullable=True),
        sa.Column("waiting_on", sa.Text(), server_default="", nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "ordinal", name=op.f("step_pkey")),
        postgresql_with={
            "fillfactor": "60",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
            "vacuum_index_cleanup": "on",
        },
    )
    op.create_index(
        "step_attention",
        "step",
        ["system", "request_id", "ordinal"],
        unique=False,
        postgresql_where=sa.text("state = 'attention'"),
    )
    op.create_index(
        "step_claim",
        "step",
        ["system", "rank", "request_id", "ordinal"],
        unique=False,
        postgresql_include=["changed_at"],
        postgresql_where=sa.text("state = 'ready' AND crashes = 0"),
    )
    op.create_index(
        "step_lease",
        "step",
        ["lease_until", "system"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "step_lost",
        "step",
        ["system", "rank"],
        unique=False,
        postgresql_where=sa.text("state = 'ready' AND crashes > 0"),
    )
    op.create_index(
        "step_timer",
        "step",
        ["due"],
        unique=False,
        postgresql_where=sa.text("state = 'parked'"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("step_timer", table_name="step", postgresql_where=sa.text("state = 'parked'"))
    op.drop_index("step_lost", table_name="step", postgresql_where=sa.text("state = 'ready' AND crashes > 0"))
    op.drop_index("step_lease", table_name="step", postgresql_where=sa.text("state = 'running'"))
    op.drop_index(
        "step_claim",
        table_name="step",
        postgresql_include=["changed_at"],
        postgresql_where=sa.text("state = 'ready' AND crashes = 0"),
    )
    op.drop_index("step_attention", table_name="step", postgresql_where=sa.text("state = 'attention'"))
    op.drop_table("step")
    op.drop_table("request_secret")
    op.drop_table("finding")
    op.drop_index("artifact_location", table_name="artifact", postgresql_where=sa.text("location IS NOT NULL"))
    op.drop_table("artifact")
    op.drop_table("turn")
    op.drop_table("parked")
    op.drop_table("tally")
    op.drop_index("request_shred_at", table_name="request", postgresql_where=sa.text("shred_at IS NOT NULL"))
    op.drop_index("request_fold_at", table_name="request", postgresql_where=sa.text("fold_at IS NOT NULL"))
    op.drop_index("request_open_deadline", table_name="request", postgresql_where=sa.text("resolution IS NULL"))
    op.drop_index("request_closed_at", table_name="request", postgresql_where=sa.text("closed_at IS NOT NULL"))
    op.drop_table("request")
    op.drop_index("quarantine_waiting", table_name="quarantine", postgresql_where=sa.text("replayed_at IS NULL"))
    op.drop_index("quarantine_at", table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_table("unpublished")
    op.drop_index("outbox_request", table_name="outbox")
    op.drop_index("outbox_created_at", table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("ledger")
    op.drop_table("inbox")
    op.drop_index("hold_hash", table_name="hold", postgresql_where=sa.text("released_at IS NULL"))
    op.drop_table("hold")
    op.drop_table("connector_state")
    op.drop_table("audit_checkpoint")
    op.drop_index("audit_at", table_name="audit", postgresql_using="brin")
    op.drop_table("audit")
