"""Connectors: one module or folder per family of systems; see README.md to write one."""
