"""The broker's side: topology, the intake consumer, the Celery app with its doorbells, and the outbox relay."""
