"""Definitions: YAML files → core values, with every fault named by file and line."""
