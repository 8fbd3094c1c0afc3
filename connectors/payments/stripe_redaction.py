"""Erasure by Stripe's redaction jobs (public preview).

A job is made for the customers of one person, validates, is run, and redacts: minutes to days, so every look at it is
one short call and the waiting is a parked row. One job a person, although a job takes ten objects: a job fails as a
whole, so one person's open dispute must not hold up nine others; and a job made for one task has the task's own
idempotency key, so making it again after a crash finds it instead of a second one.

Shapes: https://docs.stripe.com/api/privacy/redaction-job
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from connectors.contract import Done, Fatal, Outcome, Pending, Result, Retention, Retryable, Task
from connectors.payments.stripe_config import StripeConfig
from connectors.payments.stripe_gateway import Gateway

__all__ = ["Redactions"]

OBJECTS_PER_JOB: Final = 10  # Stripe's limit on object identifiers in one job
VALIDATING: Final = frozenset({"created", "validating"})
REVALIDATE_AFTER: Final = timedelta(minutes=5)
"""How old a failed validation must be for a retry to ask Stripe to validate again."""
VALIDATION_POLL: Final = timedelta(seconds=30)


class Redactions:
    """Starts redaction jobs and follows them to their end."""

    def __init__(self, gateway: Gateway, config: StripeConfig) -> None:
        """Does no I/O."""
        self._gateway = gateway
        self._behavior = config.validation_behavior
        self._poll = timedelta(seconds=config.poll_seconds)

    def start(
        self,
        task: Task,
        customer_ids: Sequence[str],
        now: datetime,
        counts: Mapping[str, int],
        retained: Sequence[Retention],
    ) -> Pending:
        """Make the jobs for one person's customers.

        ``counts`` and ``retained`` say what was done besides; they come back in the ``Done`` at the end.
        """
        jobs = []
        ordered = sorted(customer_ids)
        for at in range(0, len(ordered), OBJECTS_PER_JOB):
            job = self._gateway.redaction(
                "post",
                key=f"{task.key}:redact:{at // OBJECTS_PER_JOB}",
                objects={"customers": ordered[at : at + OBJECTS_PER_JOB]},
                validation_behavior=self._behavior,
            )
            jobs.append(job["id"])
        handle = {
            "jobs": jobs,
            "validated_at": now.isoformat(),
            "counts": dict(counts),
            "retained": [
                [r.what, r.reason, r.legal_basis, r.records, r.until.isoformat() if r.until else None] for r in retained
            ],
        }
        return Pending(handle, poll_after=VALIDATION_POLL, waiting_on="Stripe to validate the redaction")

    def follow(self, handle: Mapping[str, Any], now: datetime) -> Result:
        """Look at the jobs, and take each one step further.

        Raises ``Fatal`` when Stripe cannot redact something; retrying later than ``REVALIDATE_AFTER`` validates again.
        """
        jobs: list[str] = list(handle["jobs"])
        states = {job: str(self._gateway.redaction("get", f"/{job}").get("status")) for job in jobs}
        for job, state in states.items():
            if state == "ready":
                ran = self._gateway.redaction("post", f"/{job}/run", key=f"{job}:run")
                states[job] = str(ran.get("status"))
        failed = [job for job, state in states.items() if state == "failed"]
        if failed:
            return self._failed(failed, handle, now)
        if any(state in {"canceling", "canceled"} for state in states.values()):
            return Fatal("the redaction job was cancelled in Stripe: nothing is erased, retry with a new request")
        if all(state == "succeeded" for state in states.values()):
            return _done(handle, jobs)
        if any(state in VALIDATING for state in states.values()):
            return Pending(handle, poll_after=VALIDATION_POLL, waiting_on="Stripe to validate the redaction")
        if any(state not in {"redacting", "succeeded"} for state in states.values()):
            return Retryable("Stripe reported a redaction status that is not documented")
        return Pending(handle, poll_after=self._poll, waiting_on="Stripe to redact")

    def _failed(self, jobs: Sequence[str], handle: Mapping[str, Any], now: datetime) -> Result:
        """A failed validation wants somebody to act in Stripe; when they have, a retry validates again."""
        if now - datetime.fromisoformat(handle["validated_at"]) >= REVALIDATE_AFTER:
            for job in jobs:
                self._gateway.redaction("post", f"/{job}/validate", key=f"{job}:validate:{now.isoformat()}")
            renewed = {**handle, "validated_at": now.isoformat()}
            return Pending(renewed, poll_after=VALIDATION_POLL, waiting_on="Stripe to validate the redaction again")
        problems: set[str] = set()
        for job in jobs:
            listed = self._gateway.redaction("get", f"/{job}/validation_errors", limit=100)
            for item in listed.get("data", ()):
                kind = (item.get("erroring_object") or {}).get("object_type", "object")
                problems.add(f"{item.get('code')} ({kind})")
        return Fatal(
            f"Stripe cannot redact yet: {', '.join(sorted(problems)) or 'no reason given'}; resolve it in Stripe "
            f"(or set `validation_behavior: fix`) and retry after five minutes; job {', '.join(jobs)}"
        )


def _done(handle: Mapping[str, Any], jobs: Sequence[str]) -> Done:
    retained = tuple(
        Retention(what, reason, basis, records, date.fromisoformat(until) if until else None)
        for what, reason, basis, records, until in handle["retained"]
    )
    return Done(
        Outcome.RETAINED if retained else Outcome.EXECUTED,
        counts=dict(handle["counts"]),
        retained=retained,
        evidence={"redaction_jobs": list(jobs)},
    )
