"""``habeas package``: where an operator comes to hold personal data in hand, and leaves a trace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from orchestrator.artifacts.package import open_package, verify_package
from orchestrator.artifacts.stream import chunks
from orchestrator.cli import output
from orchestrator.cli.common import actor_option, json_option, request_argument
from orchestrator.cli.connect import find
from orchestrator.cli.engine import acted, opened
from orchestrator.cli.exits import Failed
from orchestrator.core.commands import Record
from orchestrator.stages.package import aad, find_package, to_stored
from orchestrator.store import queries, trail


@click.command()
@request_argument
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the ZIP; mode 0600.")
@click.option("--verify", is_flag=True, help="Only read it through, and compare it with what was recorded.")
@actor_option
@json_option
def package(request: str, message: bool, out: Path | None, verify: bool, actor: str, as_json: bool) -> None:
    """Unseal the package of an access or portability request, for handing it over; recorded in the audit trail."""
    if verify == (out is not None):
        raise click.UsageError("say either where to write it (--out FILE) or --verify")
    with opened() as runtime:
        with runtime.database.transaction() as tx:
            id_ = find(tx, request, message=message)
            row = find_package(tx, id_)
            key = runtime.secrets.key(tx, id_)
            recorded = _recorded_digest(queries.detail(tx, id_))
        stored, folder = to_stored(row), runtime.settings.artifacts
        if out is None:
            size, digest = verify_package(stored, key, aad(row), folder)
            if recorded and digest != recorded:
                raise Failed("the package is not the one that was made: its digest differs from the recorded one")
            output.tell({"request": id_, "verified": True, "bytes": size, "sha256": digest}, as_json)
            return
        with _new_file(out) as target:
            # Recorded and committed before the first byte is in the clear.
            with runtime.database.transaction() as tx:
                trail.note(tx, id_, Record("package opened", row.ordinal, {"actor": actor}))
            with open_package(stored, key, aad(row), folder) as unsealed:
                size = sum(target.write(piece) for piece in chunks(unsealed))
        acted("package opened", actor, request=str(id_))
        output.tell({"request": id_, "written": str(out), "bytes": size}, as_json)


def _recorded_digest(detail: queries.Detail) -> str:
    digests = [s.result.evidence.get("sha256", "") for s in detail.run.steps if s.system == "package" and s.result]
    return str(digests[-1]) if digests else ""


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that did not exist, for its owner alone; gone again when writing it fails."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failed(f"{path} is there already; choose another name") from None
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
