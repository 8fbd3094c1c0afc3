"""The `habeas` command: for operators and those on call."""
