"""``habeas new-key``."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime

import click

from orchestrator.cli import output
from orchestrator.cli.common import json_option
from orchestrator.privacy.vault import KEY_BYTES, MasterKeys


@click.command(name="new-key")
@click.option("--signing", is_flag=True, help="A signing secret for a source (whsec_…) instead of a master key.")
@click.option("--name", help="The master key's id; default: the month, e.g. k2026-11.")
@json_option
def new_key(signing: bool, name: str | None, as_json: bool) -> None:
    """Make a master key for HABEAS_MASTER_KEY, or a source's signing secret; it is printed once and stored nowhere."""
    if signing and name:
        raise click.UsageError("a signing secret has no name")
    if signing:
        made = "whsec_" + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    else:
        made = MasterKeys.generate(name or f"k{datetime.now(UTC):%Y-%m}")
        MasterKeys.parse(made)  # a name that can't be used is refused here
    if as_json:
        output.emit({"key": made})
    else:
        click.echo(made)
