"""Logging for commands that have nothing to log when all goes well: it is set up with the first line that comes."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

LEVEL = "WARNING"


class _First(logging.Handler):
    """Takes the first line, has logging set up, which replaces this handler, and hands the line on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Not redacted yet, so nothing is written here."""
        _set_up()
        logging.getLogger(record.name).handle(record)


def listen() -> None:
    """From now on libraries' warnings and a crash go to standard error as ``orchestrator.logs`` writes them."""
    root = logging.getLogger()
    root.handlers[:] = [_First()]
    root.setLevel(LEVEL)
    logging.captureWarnings(capture=True)
    sys.excepthook = _crashed


def _set_up() -> None:
    from orchestrator import logs  # noqa: PLC0415 - a quarter of the time that a look into the database takes

    logs.configure("console", LEVEL)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _set_up()  # sets its own hook
    sys.excepthook(kind, error, trace)
