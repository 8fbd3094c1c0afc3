"""How brokers are named and reached."""

from __future__ import annotations

import pytest

from orchestrator.broker import topology
from orchestrator.broker.celery_app import make_app
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings


def settings(**values: object) -> Settings:
    return Settings.model_validate({"database_url": "postgresql://u:p@h/d", **values})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql+psycopg://ada:s'ecret@db.example:5433/rights",
            r"host='db.example' port='5433' dbname='rights' user='ada' password='s\'ecret'",
        ),
        ("postgresql://ada@/rights?host=/run/pg", "host='/run/pg' dbname='rights' user='ada'"),
        ("postgresql:///rights", "dbname='rights'"),
    ],
)
def test_a_url_becomes_a_connection_string_of_libpq(url: str, expected: str) -> None:
    assert topology.libpq(url) == expected


@pytest.mark.parametrize(("given", "used"), [("amqp://h//", "pyamqp://h//"), ("amqps://h//", "amqps://h//")])
def test_rabbitmq_is_spoken_to_by_the_pure_python_driver(given: str, used: str) -> None:
    assert topology.broker_url(settings(broker_url=given)) == used
    for connection in (
        topology.connect(settings(broker_url=given), "test"),
        make_app(settings(broker_url=given), []).connection(),
    ):
        assert connection.transport.driver_name == "py-amqp"
    assert not topology.is_pgmq(settings(broker_url=given))


@pytest.mark.parametrize("given", ["", "pgmq://"])
def test_without_a_broker_the_database_is_the_broker(given: str) -> None:
    assert topology.is_pgmq(settings(broker_url=given))
    assert topology.transport_options(settings(broker_url=given))["conn_string"].startswith("host='h'")


@pytest.mark.parametrize("given", ["redis://h", "memory://", "http://h"])
def test_another_broker_is_refused_and_the_password_is_not_told(given: str) -> None:
    with pytest.raises(ConfigurationError, match="HABEAS_BROKER_URL: must be an amqp://, amqps:// or pgmq:// URL"):
        topology.broker_url(settings(broker_url=given))


def test_every_publication_is_confirmed() -> None:
    options = topology.transport_options(settings(broker_url="amqp://h//"))
    assert options["confirm_publish"] is True
    assert options["confirm_timeout"] == topology.CONFIRM_TIMEOUT


def test_the_celery_app_keeps_no_results_and_knows_one_queue_for_each_system() -> None:
    app = make_app(settings(broker_url="amqp://h//"), ["shop", "crm"])
    assert [q.name for q in app.conf.task_queues] == ["habeas.work.crm", "habeas.work.shop"]
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result
    assert not app.conf.worker_enable_remote_control
    assert not app.conf.worker_send_task_events
    assert not app.conf.task_acks_late


def test_a_doorbells_queue_is_bounded() -> None:
    arguments = topology.work_queue("crm").queue_arguments
    assert arguments["x-max-length"] == 100
    assert arguments["x-overflow"] == "drop-head"
