"""The engine that histories are made of: two systems and two workflows, small and with every kind of edge."""

from __future__ import annotations

from tests.support.scripted import system

ERASURE = {
    "workflow": "erasure",
    "version": 1,
    "right": "erasure",
    "steps": [
        {"id": "approval", "gate": "approval", "unless_verified": True},
        {"id": "discover", "action": "discover", "needs": ["approval"]},
        {"id": "erase", "action": "erase", "needs": ["approval", "discover"]},
        {"id": "verify", "action": "verify", "after_same": ["erase"], "with": {"of": "erase"}},
    ],
}
ACCESS = {
    "workflow": "access",
    "version": 1,
    "right": "access",
    "steps": [{"id": "access", "action": "access"}],
}
SLOW = {"base_seconds": 3600, "cap_seconds": 36000}
SYSTEMS = (
    system("crm", discovers=["user_id"], batch=3, retry={"attempts": 3, "crashes": 2, **SLOW},
           breaker={"failures": 4, "rest_seconds": 3600}),
    system("pay", batch=2, concurrency=1, erase_after=["crm"], retry={"attempts": 2, "crashes": 3, **SLOW},
           breaker={"failures": 3, "rest_seconds": 3600}),
)  # fmt: skip
NAMES = ("crm", "pay", "desk")
"""The systems that work is claimed of."""
