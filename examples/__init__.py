"""Runnable examples of Habeas."""
