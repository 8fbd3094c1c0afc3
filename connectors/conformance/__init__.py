"""The suite that every connector inherits: the contract's laws, checked against a real system.

    class TestCrmConformance(ConnectorConformance):
        actions = Crm.actions()

        @pytest.fixture
        def world(self) -> World: ...     # a fresh system with a few people in it, and a connector to it

Tests of actions that are not in ``actions`` are not collected. Needs pytest and nothing else.
"""

import pytest

pytest.register_assert_rewrite("connectors.conformance.suite")  # so that a failed law shows its values

from connectors.conformance.suite import ConnectorConformance  # noqa: E402 (after the line above, or it has no effect)
from connectors.conformance.world import Gathered, TestCall, World  # noqa: E402 (as above)

__all__ = ["ConnectorConformance", "Gathered", "TestCall", "World"]
