"""``habeas audit verify``: recompute the hash chains, and check the signed checkpoints over them."""

from __future__ import annotations

import click

from orchestrator.cli import output
from orchestrator.cli.common import json_option
from orchestrator.cli.connect import find
from orchestrator.cli.engine import opened
from orchestrator.cli.exits import Exit, Group
from orchestrator.errors import ConfigurationError
from orchestrator.privacy.audit import public_keys
from orchestrator.runtime import Runtime
from orchestrator.store import trail

SHOWN = 100
"""Broken chains that are listed one by one; the rest is counted."""


@click.group(cls=Group)
def audit() -> None:
    """Prove the audit trail."""


@audit.command()
@click.argument("request", metavar="[REQUEST]", required=False)
@click.option("--message", is_flag=True, help="REQUEST is the id of the message that asked.")
@click.option("--all", "all_", is_flag=True, help="Every chain, and every checkpoint.")
@json_option
def verify(request: str | None, message: bool, all_: bool, as_json: bool) -> None:
    """Recompute a request's chain of hashes, or all with their signed checkpoints; exit code 1 if any is broken."""
    if (request is None) == (not all_):
        raise click.UsageError("name a request, or say --all")
    with opened() as runtime:
        keys = _keys(runtime) if all_ else {}
        chains = entries = broken = 0
        faults: list[tuple[str, str]] = []
        with runtime.database.transaction() as tx:
            id_ = None
            if request is not None:
                id_ = find(tx, request, message=message)
            for verdict in trail.verify(tx, id_):
                chains, entries = chains + 1, entries + verdict.entries
                if verdict.fault:
                    broken += 1
                    faults += [(f"chain {verdict.id}", verdict.fault)] if len(faults) < SHOWN else []
            if id_ is not None and not chains:
                broken, faults = 1, [(f"chain {id_}", "all its entries are missing")]
        checked = 0
        if all_:
            with runtime.database.transaction() as tx:
                for checkpoint in trail.checkpoints(tx, keys):
                    checked += 1
                    if checkpoint.fault:
                        broken += 1
                        faults.append((f"checkpoint {checkpoint.id}", checkpoint.fault))
    _tell(chains, entries, checked, broken, faults, as_json)


def _keys(runtime: Runtime) -> dict[str, bytes]:
    try:
        return dict(public_keys(runtime.masters))
    except ConfigurationError as error:
        raise ConfigurationError("checkpoints are checked with keys made from the master keys", error.faults) from None


def _tell(
    chains: int, entries: int, checkpoints: int, broken: int, faults: list[tuple[str, str]], as_json: bool
) -> None:
    facts = {"chains": chains, "entries": entries, "checkpoints": checkpoints, "broken": broken}
    if as_json:
        output.emit({**facts, "faults": [{"what": what, "fault": fault} for what, fault in faults]})
    else:
        console = output.console()
        if faults:
            console.print(output.table(("broken", "how"), faults))
        holds = "everything holds" if not broken else f"{broken} broken"
        console.print(f"{chains} chains, {entries} entries, {checkpoints} checkpoints: {holds}")
    if broken:
        raise SystemExit(int(Exit.REFUSED))
