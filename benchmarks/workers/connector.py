"""A connector for the slow vendor: one call for each person."""

from __future__ import annotations

import http.client

from connectors.contract import Call, Connector, ConnectorConfig, Done, Outcome, Retryable, Task

OK = 200


class SlowConfig(ConnectorConfig):
    """Where the vendor is."""

    port: int


class Slow(Connector[SlowConfig]):
    """Calls it."""

    Config = SlowConfig
    batch = 1000

    def categories(self) -> frozenset[str]:
        """One."""
        return frozenset({"user"})

    def identified_by(self) -> frozenset[str]:
        """By e-mail."""
        return frozenset({"email"})

    def erase(self, task: Task, _call: Call) -> Done:
        """One call, which takes as long as the vendor likes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.config.port, timeout=30)
        try:
            connection.request("POST", "/erase", headers={"Idempotency-Key": task.key})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise Retryable(f"the vendor did not answer ({type(error).__name__})") from None
        finally:
            connection.close()
        if status != OK:
            raise Retryable(f"the vendor answered with status {status}")
        return Done(Outcome.EXECUTED, {"people": 1})
