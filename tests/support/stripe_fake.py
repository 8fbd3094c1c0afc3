"""What localstripe lacks of Stripe, as its documentation describes it: over HTTP, with state.

Deleted customers that can still be retrieved and whose invoices stay, idempotency keys that replay the first answer,
pausing of subscriptions, draft invoices, disputes, credit notes, and the redaction preview
(https://docs.stripe.com/api/privacy/redaction-job). Failures can be ordered for the next calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from tests.support.http_fake import Answer, Asked, HttpFake, running_http_fake

Thing = dict[str, Any]
JOBS: Final = "/v1/privacy/redaction_jobs"
PERSONAL: Final = ("name", "email", "phone", "address", "description")


def refusal(status: int, code: str | None, message: str, kind: str = "invalid_request_error", **more: str) -> Answer:
    """An error as Stripe words it; messages quote what was sent."""
    return Answer(status, {"error": {"type": kind, "message": message, **({"code": code} if code else {}), **more}})


def missing(what: str) -> Answer:
    return refusal(404, "resource_missing", f"No such object: '{what}'", param="id")


@dataclass
class StripeFake:
    """The account: change it from a test, look at it from a test."""

    things: dict[str, Thing] = field(default_factory=dict)
    """Every object by id, newest last."""
    jobs: dict[str, Thing] = field(default_factory=dict)
    problems: dict[str, list[Thing]] = field(default_factory=dict)
    """Customer id → the validation errors that its redaction meets."""
    failures: list[Callable[[Asked], Answer | None]] = field(default_factory=list)
    """Asked first, each once: an answer instead of the real one, or ``None`` to let this call pass."""
    preview: bool = True
    server: HttpFake | None = None
    _replays: dict[str, Answer] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests so far for one method and path."""
        assert self.server is not None
        return [a for a in self.server.asked if (a.method, a.path) == (method, path)]

    def add(self, kind: str, prefix: str, **fields: Any) -> str:
        """Put an object into the account; returns its id."""
        made = f"{prefix}_{next(self._ids)}"
        self.things[made] = {"id": made, "object": kind, "created": 1_780_000_000, "metadata": {}, **fields}
        return made

    def customer(self, email: str, **fields: Any) -> str:
        return self.add("customer", "cus", email=email, name="Ada Lovelace", **fields)

    def redacted(self) -> None:
        """Time passes: every job that was redacting is done."""
        for job in self.jobs.values():
            if job["status"] == "redacting":
                job["status"] = "succeeded"
                for customer in job["objects"]["customers"]:
                    self.things[customer].update(dict.fromkeys(PERSONAL, "[redacted]"), address=None)
                    for thing in list(self.things.values()):
                        if thing["object"] == "payment_method" and thing.get("customer") == customer:
                            thing["customer"] = None

    def validated(self) -> None:
        """Time passes: every job that was validating is ready or has failed."""
        for job in self.jobs.values():
            if job["status"] == "validating":
                hit = any(self.problems.get(c) for c in job["objects"]["customers"])
                job["status"] = "failed" if hit and job["validation_behavior"] == "error" else "ready"

    # Answering. ----------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        if self.failures and (failure := self.failures.pop(0)(asked)) is not None:
            return failure
        key = asked.headers.get("idempotency-key")
        if asked.method != "POST" or not key:
            return self._route(asked)
        if key not in self._replays:
            self._replays[key] = self._route(asked)
        return self._replays[key]

    def _route(self, asked: Asked) -> Answer:
        if asked.path.startswith(JOBS):
            if not self.preview:
                return refusal(404, None, f"Unrecognized request URL ({asked.method}: {asked.path}).")
            return self._redaction(asked)
        _, _, kind, *rest = asked.path.split("/")
        singular = kind.removesuffix("s")
        if not rest:
            return self._listed(singular, asked)
        if rest[1:] == ["tax_ids"]:
            return self._page([t for t in self.things.values() if t["object"] == "tax_id"], asked)
        thing = self.things.get(rest[0])
        if thing is None:
            return missing(rest[0])
        if asked.method == "GET":
            return Answer(body=thing)
        if asked.method == "DELETE":
            return self._deleted(thing)
        return self._changed(thing, rest[1:], asked)

    def _listed(self, kind: str, asked: Asked) -> Answer:
        filters = {k: v for k, v in asked.query.items() if k not in {"limit", "starting_after", "status"}}
        found = [
            t
            for t in reversed(self.things.values())
            if t["object"] == kind
            and not (kind == "customer" and t.get("deleted"))
            and all(t.get(k) == v for k, v in filters.items())
        ]
        return self._page(found, asked)

    @staticmethod
    def _page(found: list[Thing], asked: Asked) -> Answer:
        start = next((i + 1 for i, t in enumerate(found) if t["id"] == asked.query.get("starting_after")), 0)
        end = start + int(asked.query.get("limit", 10))
        return Answer(
            body={"object": "list", "url": asked.path, "data": found[start:end], "has_more": end < len(found)}
        )

    def _deleted(self, thing: Thing) -> Answer:
        if thing.get("deleted"):
            return missing(thing["id"])
        if thing["object"] == "subscription":
            thing["status"] = "canceled"
            return Answer(body=thing)
        if thing["object"] == "invoice" and thing["status"] != "draft":
            return refusal(400, "invoice_not_editable", "You can only delete draft invoices.")
        gone = {"id": thing["id"], "object": thing["object"], "deleted": True}
        if thing["object"] == "customer":
            self.things[thing["id"]] = gone
        else:
            del self.things[thing["id"]]
        return Answer(body=gone)

    @staticmethod
    def _changed(thing: Thing, verb: list[str], asked: Asked) -> Answer:
        if thing.get("deleted"):
            return missing(thing["id"])
        if thing["object"] == "payment_method" and thing.get("customer") is None:
            return refusal(400, None, "The payment method is not attached to a customer.")
        if verb == ["detach"]:
            thing["customer"] = None
            return Answer(body=thing)
        for key, value in asked.form.items():
            outer, *inner = re.findall(r"[^\[\]]+", key)
            if inner:
                if not isinstance(thing.get(outer), dict):
                    thing[outer] = {}
                thing[outer][inner[0]] = value or None
            else:
                thing[outer] = value or None
        return Answer(body=thing)

    def _redaction(self, asked: Asked) -> Answer:
        if "preview" not in asked.headers.get("stripe-version", ""):
            return refusal(400, None, "Redaction is in preview: send a preview version.")
        parts = asked.path.removeprefix(JOBS).strip("/").split("/")
        if parts == [""]:
            return self._job_made(asked)
        job = self.jobs.get(parts[0])
        if job is None:
            return missing(parts[0])
        step = (asked.method, *parts[1:])
        if step == ("POST", "run") and job["status"] == "ready":
            job["status"] = "redacting"
        elif step == ("POST", "validate") and job["status"] == "failed":
            job["status"] = "validating"
        elif step == ("GET", "validation_errors"):
            return self._page([p for c in job["objects"]["customers"] for p in self.problems.get(c, [])], asked)
        elif step != ("GET",):
            return refusal(400, None, f"The job is {job['status']}.")
        return Answer(body={k: v for k, v in job.items() if k != "objects"})

    def _job_made(self, asked: Asked) -> Answer:
        customers = asked.form_list("objects[customers]")
        if len(customers) > 10:
            return refusal(400, None, "At most 10 objects can be redacted in a job.", param="objects")
        made = f"prj_{next(self._ids)}"
        self.jobs[made] = {
            "id": made,
            "object": "privacy.redaction_job",
            "status": "validating",
            "validation_behavior": asked.form.get("validation_behavior", "error"),
            "objects": {"customers": customers},
        }
        return Answer(body={k: v for k, v in self.jobs[made].items() if k != "objects"})


@contextmanager
def running_stripe_fake() -> Iterator[StripeFake]:
    """An empty account, served on a free port."""
    fake = StripeFake()
    with running_http_fake(fake.answer) as fake.server:
        yield fake
