"""The Celery app. Its messages are doorbells: they carry a system's name and no work, and may be lost or doubled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from orchestrator.broker import topology
from orchestrator.settings import Settings
from orchestrator.wire import tls_of

RING = "habeas.ring"
"""The one task: a system has something to do."""


def make_app(settings: Settings, systems: Iterable[str]) -> Celery:
    """The app for these systems; no result backend, no canvas, no countdowns: rows do all that."""
    app = Celery("habeas", set_as_current=False)
    options: dict[str, Any] = {
        "broker_url": topology.broker_url(settings),
        "broker_use_ssl": tls_of(topology.broker_url(settings)),
        "broker_transport_options": topology.transport_options(settings),
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": 0 if topology.is_pgmq(settings) else 20,
        "broker_connection_timeout": 5,
        "broker_pool_limit": 2,
        "task_queues": [topology.work_queue(s) for s in sorted(systems)],
        "task_default_queue": topology.work_queue_name("desk"),
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": False,  # a lost doorbell is rung again by the sweep
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_protocol": 2,
        "worker_consumer": "orchestrator.broker.worker:WorkerConsumer",
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": settings.worker_processes,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_proc_alive_timeout": 30,
        "enable_utc": True,
    }
    app.conf.update(options)
    return app
