"""The command group."""

from __future__ import annotations

import click

from orchestrator.cli.lazy import Lazy, LazyGroup


@click.group(cls=LazyGroup)
def cli() -> None:
    """Habeas: data rights, carried out and proven."""


# In the order of a newcomer's day: see it work, ask, look, act, set up, run. A test holds each sentence equal to the
# command's own first.
for name, where, summary in (
    (
        "demo",
        "up:demo",
        "Run the demo shop: four real systems, hundreds of requests, and a check in the systems themselves.",
    ),
    (
        "up",
        "up:up",
        "Run a whole deployment here: embedded PostgreSQL (database and broker), intake, worker and clock.",
    ),
    ("submit", "submit:submit", "Ask for a right on behalf of a source: a signed message through the broker."),
    ("list", "lookup:list_", "List requests; newest first unless said otherwise."),
    ("show", "lookup:show", "Show one request: what each system did, what was kept and why, what is waited for."),
    ("why", "why:why", "Say why a request is where it is, and what would help."),
    ("watch", "watch:watch", "Watch requests and systems as they move, or one request until it closes."),
    (
        "package",
        "package:package",
        "Unseal the package of an access or portability request, for handing it over; recorded in the audit trail.",
    ),
    (
        "approve",
        "operators:approve",
        "Say yes to what a request waits for: an identity verified, an approval given, a manual step done.",
    ),
    ("decline", "operators:decline", "Say no: the whole request ends, denied."),
    ("retry", "operators:retry", "Try again now: one step, all of a request that want attention, or all of a system."),
    ("skip", "operators:skip", "Leave out: one step, all of a request that want attention, or all of a system."),
    ("done", "operators:done", "Record that a step was carried out by hand."),
    ("cancel", "operators:cancel", "Begin nothing more, and close when what runs has ended."),
    ("pause", "operators:pause", "Begin nothing more, on a request or on a system, until it is resumed."),
    (
        "resume",
        "operators:resume",
        "Go on with a paused request, or with a system (its circuit breaker is closed too).",
    ),
    ("hold", "holds:hold", "Place and release legal holds."),
    ("quarantine", "quarantine:quarantine", "Look at refused messages, and send them to intake again."),
    ("audit", "audit:audit", "Prove the audit trail."),
    ("ledger", "recover:ledger", "The ledger of erased people: keyed hashes, no identities."),
    ("recover", "recover:recover", "Put a database that was restored from a backup to work again."),
    (
        "check",
        "check:check",
        "Check settings, workflows, systems, sources: all faults at once, by file and line; exit code 3 if any.",
    ),
    (
        "new-key",
        "keys:new_key",
        "Make a master key for HABEAS_MASTER_KEY, or a source's signing secret; it is printed once and stored nowhere.",
    ),
    ("migrate", "migrate:migrate", "Bring the database to this version's schema."),
    ("version", "migrate:version", "Print the version, and the schema it needs."),
    ("intake", "processes:intake", "Take rights requests off the queue: validate, plan, store."),
    ("worker", "processes:worker", "Work on systems: claim, call the connector, settle."),
    ("clock", "processes:clock", "Sweep (timers, lost work, deadlines, purges) and publish events; one of them leads."),
):
    cli.add_command(Lazy(name, where, summary))


def main() -> None:
    """Entry point."""
    cli()
