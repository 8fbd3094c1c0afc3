"""Habeas: event-driven orchestration of data rights."""
