"""The pure core: vocabulary, model, planner and state machine. Imports the standard library alone; does no I/O."""
