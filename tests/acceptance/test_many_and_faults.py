"""Many requests at once; and the same result when a worker is killed or the broker restarts in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.shop.check import check, snapshot
from examples.shop.world import Shop
from tests.support.account_service import AccountService, account_service
from tests.support.deployment import Deployment, eventually, rows

OpenShop = Callable[..., Shop]


def test_a_thousand_mixed_requests_at_once_all_close_rightly_and_touch_nobody_else(
    open_shop: OpenShop, deploy: Any, rabbitmq_vhost: str
) -> None:
    shop = open_shop(people=1150, requests=1000)
    before = snapshot(shop)
    with (
        deploy(shop, rabbitmq_vhost, "intake", "worker", "clock") as deployment,
        account_service(deployment) as service,
    ):
        for request in shop.cast.requests:
            service.ask(request)
        service.await_all(shop.cast.requests, patience=900)
        _nothing_left(deployment, len(shop.cast.requests))
    assert check(before, shop, shop.cast.requests) == []


def test_a_worker_killed_in_the_middle_changes_nothing_about_the_result(
    open_shop: OpenShop, deploy: Any, broker_url: str
) -> None:
    shop = open_shop(people=120, requests=60)
    before = snapshot(shop)
    with deploy(shop, broker_url, lease_seconds="3") as deployment, account_service(deployment) as service:
        for request in shop.cast.requests:
            service.ask(request)
        for _ in range(3):
            _wait_until_work_is_in_hand(deployment)
            deployment.kill("worker")
            deployment.start("worker")
        service.await_all(shop.cast.requests)
        _nothing_left(deployment, len(shop.cast.requests))
        lost = rows(deployment.runtime(), "SELECT count(*) AS n FROM audit WHERE what = 'lost'")[0].n
    assert lost > 0, "no step was in a killed worker's hands: the test did not test"
    assert check(before, shop, shop.cast.requests) == []


def test_a_broker_restarted_in_the_middle_changes_nothing_about_the_result(
    open_shop: OpenShop, deploy: Any, own_rabbitmq: Callable[[], Any]
) -> None:
    rabbitmq = own_rabbitmq()
    shop = open_shop(people=120, requests=60)
    before = snapshot(shop)
    with deploy(shop, rabbitmq.url) as deployment:
        with account_service(deployment) as service:
            for request in shop.cast.requests:
                service.ask(request)
            _wait_until_work_is_in_hand(deployment)
        rabbitmq.restart()
        with account_service(deployment) as again:
            _await_closed(deployment, len(shop.cast.requests))
            _hear_everything(again, service, shop)
    assert check(before, shop, shop.cast.requests) == []


@pytest.mark.parametrize("gone", ["intake", "clock"])
def test_intake_or_clock_killed_in_the_middle_changes_nothing_about_the_result(
    open_shop: OpenShop, deploy: Any, rabbitmq_vhost: str, gone: str
) -> None:
    shop = open_shop(people=40, requests=16)
    before = snapshot(shop)
    with deploy(shop, rabbitmq_vhost) as deployment, account_service(deployment) as service:
        for n, request in enumerate(shop.cast.requests):
            service.ask(request)
            if n == len(shop.cast.requests) // 2:
                deployment.kill(gone)
        deployment.start(gone)
        service.await_all(shop.cast.requests)
        _nothing_left(deployment, len(shop.cast.requests))
    assert check(before, shop, shop.cast.requests) == []


def _wait_until_work_is_in_hand(deployment: Deployment) -> None:
    runtime = deployment.runtime()
    eventually(lambda: rows(runtime, "SELECT 1 FROM step WHERE state = 'running' LIMIT 1"), "a step is running")
    runtime.close()


def _await_closed(deployment: Deployment, requests: int) -> None:
    runtime = deployment.runtime()
    eventually(
        lambda: rows(runtime, "SELECT count(*) AS n FROM request WHERE resolution IS NOT NULL")[0].n == requests,
        "every request is closed",
        180,
    )
    runtime.close()


def _hear_everything(now: AccountService, earlier: AccountService, shop: Shop) -> None:
    """Answers that came before the restart and those after it, together."""
    now.answers.update(earlier.answers)
    now.await_all(shop.cast.requests)


def _nothing_left(deployment: Deployment, requests: int) -> None:
    runtime = deployment.runtime()
    closed = rows(runtime, "SELECT count(*) AS n FROM request WHERE resolution LIKE 'completed%'")[0].n
    assert closed == requests
    assert rows(runtime, "SELECT state, error FROM step WHERE state <> 'done' LIMIT 3") == []
    assert rows(runtime, "SELECT 1 FROM quarantine LIMIT 1") == []
    eventually(lambda: not rows(runtime, "SELECT 1 FROM unpublished"), "all events are out")
    runtime.close()
