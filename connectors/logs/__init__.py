"""Rotated log files: find, access and erase many people's lines in one pass."""

from connectors.logs.config import LogsConfig
from connectors.logs.connector import Logs

__all__ = ["Logs", "LogsConfig"]
