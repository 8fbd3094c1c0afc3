"""Keeping personal data inside Habeas sealed, and proving what was done: vault, ledger, audit chain."""
