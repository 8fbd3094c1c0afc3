"""Requests of six steps, beside Celery and DBOS."""
