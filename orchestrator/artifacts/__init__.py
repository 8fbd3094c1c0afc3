"""Sealed streaming files: what connectors gathered, and the package a person gets."""
