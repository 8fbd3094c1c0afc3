"""What performance is measured with, peers beside us. Each module is a command: ``python -m benchmarks.NAME``."""
