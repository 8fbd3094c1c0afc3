"""The shapes of the definition files. Their JSON Schemas, for editors, are made from these models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.core.vocabulary import Action, Right

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
"""Names go into queue names, metrics and tables: lower-case letters, digits and underscores."""
Category = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")]
Seconds = Annotated[float, Field(ge=0)]
GateKind = Literal["identity_verification", "approval", "cooling_off", "manual"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class StepEntry(_Model):
    """One entry of a workflow's steps: an action on systems, a gate, or the package."""

    id: Name = Field(description="Other entries refer to it by this name.")
    action: Action | None = Field(None, description="What each system is asked to do.")
    gate: GateKind | None = Field(None, description="A wait for a person or a time, instead of an action.")
    systems: Literal["all"] | list[Name] = Field("all", description="All that hold data in scope, or these.")
    needs: list[Name] = Field(default=[], description="Entries all of whose steps must be settled first.")
    after_same: list[Name] = Field(
        default=[], description="Entries whose step on the same system must be settled first."
    )
    unless_verified: bool = Field(
        default=False, description="Left out when the request brings accepted verification evidence."
    )
    only_sources: list[str] | None = Field(None, description="Only for requests of these sources.")
    options: dict[str, Any] = Field(default={}, alias="with", description="Handed to the connector as it is.")

    @model_validator(mode="after")
    def _one_of_them(self) -> StepEntry:
        if (self.action is None) == (self.gate is None):
            raise ValueError("say either action or gate")
        if self.gate is not None and self.systems != "all":
            raise ValueError("a gate is a step of the desk: leave systems out")
        if self.action is Action.GATE:
            raise ValueError("write gate: <kind> instead of action: gate")
        if self.action is Action.VERIFY and "of" not in self.options:
            raise ValueError("a verify step says what it checks: with: {of: erase}")
        return self


class WorkflowFile(_Model):
    """How one right is carried out."""

    workflow: Name
    version: int = Field(
        ge=1, description="Raise it with every change; a request keeps the version it was planned with."
    )
    right: Right
    description: str = ""
    categories: list[Category] | None = Field(None, description="Limits the right to these data categories.")
    keep_days: int = Field(30, ge=0, description="Days after closing until the sealed personal data is shredded.")
    steps: list[StepEntry] = Field(min_length=1)


class RateEntry(_Model):
    """A vendor's limit."""

    per_second: float = Field(gt=0, description="Data subjects a second, all workers together.")
    burst: int = Field(100, ge=1, description="Data subjects at once after a rest.")


class RetryEntry(_Model):
    """How failures are retried."""

    attempts: int = Field(8, ge=1)
    base_seconds: Seconds = 2
    cap_seconds: Seconds = 900
    crashes: int = Field(3, ge=1, description="Lost workers before a step wants attention.")


class BreakerEntry(_Model):
    """When to leave a failing system alone."""

    failures: int = Field(20, ge=1, description="Steps failing one after another.")
    rest_seconds: Seconds = 30


class SystemEntry(_Model):
    """One system that holds data about people."""

    name: Name
    connector: str
    title: str = Field("", description="What people call it.")
    erase_after: list[Name] = Field(default=[], description="Systems that must be erased before this one.")
    supplies: list[str] | None = Field(
        None, description="Identity types that others rely on it for; default: all that it can discover."
    )
    cannot: dict[Action, str] = Field(default={}, description="Actions it can't do, and why: told in every answer.")
    batch: int | None = Field(None, ge=1, le=10_000, description="Data subjects in one call; default: the connector's.")
    gather_seconds: Seconds = Field(
        0, description="How long steps wait for their batch to fill; where a pass costs the same for one and for many."
    )
    parallel: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Data subjects of a batch at once, where the connector calls for each; default: the connector's.",
    )
    concurrency: int | None = Field(None, ge=1, description="Batches at once, all workers together.")
    rate: RateEntry | None = None
    retry: RetryEntry = RetryEntry()
    breaker: BreakerEntry = BreakerEntry()
    config: dict[str, Any] = Field(default={}, description="The connector's own settings.")


class SystemsFile(_Model):
    """The systems file."""

    systems: list[SystemEntry] = Field(min_length=1)


class RegulationEntry(_Model):
    """How long one regulation gives, in calendar months and days."""

    title: str = ""
    months: int = Field(0, ge=0)
    days: int = Field(0, ge=0)
    extension_months: int = Field(0, ge=0)
    extension_days: int = Field(0, ge=0)


class RegulationsFile(_Model):
    """Regulations and their clocks."""

    regulations: dict[Name, RegulationEntry] = Field(min_length=1)


class CategoriesFile(_Model):
    """The policy's categories of personal data, as groups of Fides data categories."""

    categories: dict[Name, list[Category]] = Field(min_length=1)
