"""All definition files → one ``Definitions`` value, or all their faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from connectors import registry
from connectors.contract import Connector, ConnectorError
from orchestrator.core.model import Clock, Limits, RetryPolicy, StepTemplate, System, Workflow
from orchestrator.core.vocabulary import Action, Right
from orchestrator.definitions import checks
from orchestrator.definitions.schema import (
    CategoriesFile,
    RegulationsFile,
    StepEntry,
    SystemEntry,
    SystemsFile,
    WorkflowFile,
)
from orchestrator.definitions.yamlfile import Document, read, resolve_secrets, validate
from orchestrator.errors import ConfigurationError, Fault
from orchestrator.messages.sources import Source, Sources

REGULATIONS = "regulations.yaml"
CATEGORIES = "categories.yaml"


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything that is defined rather than asked: rights, systems, clocks, categories."""

    workflows: Mapping[Right, Workflow]
    systems: Mapping[str, System]
    clocks: Mapping[str, Clock]
    categories: Mapping[str, frozenset[str]]
    """The policy's category → the Fides data categories in it."""
    connectors: Mapping[str, Connector[Any]] = field(repr=False)
    """System → its connector, configured, not yet connected."""


def load(
    workflows: Path,
    systems: Path,
    environment: Mapping[str, str] | None = None,
    *,
    builtin: Mapping[str, Connector[Any]],
) -> Definitions:
    """Read and check everything. ``builtin``: the engine's own systems (the desk, the packager).

    Raises ``ConfigurationError`` with every fault found.
    """
    definitions, faults = examine(workflows, systems, environment, builtin=builtin)
    if definitions is None or faults:
        raise ConfigurationError("the definitions have faults", faults=faults)
    return definitions


def examine(
    workflows: Path,
    systems: Path,
    environment: Mapping[str, str] | None = None,
    *,
    builtin: Mapping[str, Connector[Any]],
) -> tuple[Definitions | None, list[Fault]]:
    """What ``load`` does, without raising: the definitions as far as they could be read, and all faults."""
    clocks, faults = _regulations(workflows / REGULATIONS)
    categories, more = _categories(workflows / CATEGORIES)
    faults += more
    system_doc, system_map, connectors, more = _systems(systems, environment)
    faults += more
    reserved = [s for s in builtin if s in system_map]
    faults += [
        system_doc.fault((), f"the system name {name!r} is the engine's own; choose another") for name in reserved
    ]
    flows: dict[Right, Workflow] = {}
    documents: dict[Right, Document] = {}
    for path in sorted(workflows.glob("*.yaml")):
        if path.name in {REGULATIONS, CATEGORIES}:
            continue
        document, more = read(path)
        faults += more
        entry, more = validate(WorkflowFile, document) if not more else (None, [])
        faults += more
        if entry is None:
            continue
        if entry.right in flows:
            faults.append(document.fault(("right",), f"{documents[entry.right].path} is for {entry.right} as well"))
        flows[entry.right], documents[entry.right] = _workflow(entry), document
    for name, connector in builtin.items():
        system_map[name] = _describe(SystemEntry(name=name, connector=name), connector)
    definitions = Definitions(flows, system_map, clocks, categories, {**connectors, **builtin})
    if not faults:
        faults += checks.workflows(flows, documents, system_map)
        faults += checks.erase_order(system_map, system_doc)
        faults += checks.coverage(categories, system_map, system_doc, read(workflows / CATEGORIES)[0])
        faults += checks.capabilities(flows, system_map, system_doc)
    return definitions, sorted(set(faults), key=lambda f: (f.file, f.line or 0, f.text))


def _regulations(path: Path) -> tuple[dict[str, Clock], list[Fault]]:
    document, faults = read(path)
    entry, more = validate(RegulationsFile, document) if not faults else (None, [])
    if entry is None:
        return {}, [*faults, *more]
    return {
        name: Clock(name, r.months, r.days, r.extension_months, r.extension_days, r.title)
        for name, r in entry.regulations.items()
    }, []


def _categories(path: Path) -> tuple[dict[str, frozenset[str]], list[Fault]]:
    document, faults = read(path)
    entry, more = validate(CategoriesFile, document) if not faults else (None, [])
    if entry is None:
        return {}, [*faults, *more]
    return {name: frozenset(keys) for name, keys in entry.categories.items()}, []


def _workflow(entry: WorkflowFile) -> Workflow:
    return Workflow(
        entry.workflow,
        entry.version,
        entry.right,
        tuple(_template(s) for s in entry.steps),
        frozenset(entry.categories) if entry.categories is not None else None,
        timedelta(days=entry.keep_days),
    )


def _template(entry: StepEntry) -> StepTemplate:
    options = dict(entry.options)
    if entry.gate is not None:
        options["gate"] = entry.gate
    return StepTemplate(
        entry.id,
        entry.action or Action.GATE,
        None if entry.systems == "all" else tuple(entry.systems),
        tuple(entry.needs),
        tuple(entry.after_same),
        options,
        entry.unless_verified,
        frozenset(entry.only_sources) if entry.only_sources is not None else None,
    )


class SourcesFile(BaseModel):
    """The sources file."""

    model_config = ConfigDict(extra="forbid")
    sources: list[Source]


def load_sources(path: Path, environment: Mapping[str, str] | None = None) -> Sources:
    """Who may ask for what. Raises ``ConfigurationError`` with every fault found."""
    sources, faults = examine_sources(path, environment)
    if sources is None or faults:
        raise ConfigurationError("the sources file has faults", faults=faults)
    return sources


def examine_sources(path: Path, environment: Mapping[str, str] | None = None) -> tuple[Sources | None, list[Fault]]:
    """What ``load_sources`` does, without raising."""
    document, faults = read(path)
    if faults:
        return None, faults
    data, faults = resolve_secrets(document, document.data, (), environment)
    entry, more = validate(SourcesFile, document, data)
    if entry is None:
        return None, faults + more
    try:
        return Sources(entry.sources), faults
    except ConfigurationError as error:
        return None, [*faults, *(document.fault(("sources",), f.text) for f in error.faults)]


class _Partial(BaseModel):
    """A systems file whose entries are validated one by one, so that one fault does not hide the others."""

    model_config = ConfigDict(extra="forbid")
    systems: list[dict[str, Any]]


def _systems(
    path: Path, environment: Mapping[str, str] | None
) -> tuple[Document, dict[str, System], dict[str, Connector[Any]], list[Fault]]:
    document, faults = read(path)
    whole, more = validate(_Partial, document) if not faults else (None, [])
    faults += more
    if whole is not None and not whole.systems:
        faults += validate(SystemsFile, document)[1]
    systems: dict[str, System] = {}
    connectors: dict[str, Connector[Any]] = {}
    for n, raw in enumerate(whole.systems if whole else []):
        where = ("systems", n)
        entry, more = validate(SystemEntry, document, raw, where)
        faults += more
        if entry is None:
            continue
        if entry.name in systems:
            faults.append(document.fault((*where, "name"), f"there are two systems named {entry.name!r}"))
        connector, more = _connector(entry, document, where, environment)
        faults += more
        if connector is not None:
            connectors[entry.name] = connector
            systems[entry.name] = _describe(entry, connector)
    return document, systems, connectors, faults


def _connector(
    entry: SystemEntry, document: Document, where: tuple[str | int, ...], environment: Mapping[str, str] | None
) -> tuple[Connector[Any] | None, list[Fault]]:
    try:
        kind = registry.load(entry.connector)
    except (registry.UnknownConnector, ConnectorError) as error:
        return None, [document.fault((*where, "connector"), str(error))]
    raw, faults = resolve_secrets(document, entry.config, (*where, "config"), environment)
    if faults:
        return None, faults
    config, faults = validate(kind.Config, document, raw, (*where, "config"))
    if config is None:
        return None, faults
    try:
        connector = kind(entry.name, config)
    except (ValueError, ConnectorError) as error:
        return None, [document.fault((*where, "config"), line) for line in str(error).splitlines() if line.strip()]
    if entry.parallel is not None:
        connector.parallel = entry.parallel
    return connector, []


def _describe(entry: SystemEntry, connector: Connector[Any]) -> System:
    batch = min(entry.batch, connector.batch) if entry.batch else connector.batch
    limits = Limits(
        batch,
        timedelta(seconds=entry.gather_seconds),
        entry.concurrency,
        entry.rate.per_second if entry.rate else None,
        entry.rate.burst if entry.rate else batch,
        entry.breaker.failures,
        timedelta(seconds=entry.breaker.rest_seconds),
    )
    retry = entry.retry
    discovers = connector.discovers() if entry.supplies is None else connector.discovers() & frozenset(entry.supplies)
    # Searching where nobody relies on what is found would cost a call per person.
    useless = frozenset({Action.DISCOVER}) if entry.supplies is not None and not discovers else frozenset()
    return System(
        name=entry.name,
        connector=entry.connector,
        actions=frozenset(Action(a) for a in connector.supports()) - frozenset(entry.cannot) - useless,
        categories=connector.categories(),
        identified_by=connector.identified_by(),
        discovers=discovers,
        erase_after=frozenset(entry.erase_after) | connector.erase_after(),
        cannot=dict(entry.cannot),
        title=entry.title or entry.name,
        retry=RetryPolicy(
            retry.attempts, timedelta(seconds=retry.base_seconds), timedelta(seconds=retry.cap_seconds), retry.crashes
        ),
        limits=limits,
    )
