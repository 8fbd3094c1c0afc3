"""The data map: Fides dataset files read into frozen collections, with every fault named at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from fideslang.models import Dataset, DatasetCollection, DatasetField, FidesMeta
from pydantic import ValidationError

from connectors.contract import Fatal
from connectors.sql.config import Mask

IDENTITY_TYPES: Final = {
    # The names Fides uses → ours. Others are custom identities.
    "phone_number": "phone",
    "fides_user_device_id": "device_id",
}
KNOWN_IDENTITIES: Final = frozenset({"email", "user_id", "phone", "device_id", "ip", "stripe_customer_id"})
STRATEGIES: Final = {
    # Fides' names → ours.
    "null_rewrite": "null_rewrite",
    "string_rewrite": "string_rewrite",
    "hash": "hash",
    "random_string_rewrite": "random",
    "random": "random",
}


class DataMapFaults(Fatal):
    """The data map of a system has faults; ``faults`` names each with file, collection and field."""

    def __init__(self, faults: Iterable[str]) -> None:
        """``faults``: one sentence each."""
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names a collection: a table of a dataset."""

    dataset: str
    table: str

    def __str__(self) -> str:
        return f"{self.dataset}.{self.table}"


@dataclass(frozen=True, slots=True)
class Reference:
    """``field`` of the collection that holds this and ``target_field`` of another hold the same value."""

    field: str
    dataset: str
    target: str
    """``collection.field``, as written."""
    outward: bool
    """Followed from this collection to the other (direction ``to``), rather than from the other to this one."""
    explicit: bool
    """The file says the direction."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column."""

    name: str
    categories: frozenset[str]
    identity: str | None
    primary_key: bool
    read_only: bool
    length: int | None
    mask: Mask | None


@dataclass(frozen=True, slots=True)
class Collection:
    """One table."""

    key: Key
    file: str
    schema: str | None
    fields: Mapping[str, Field]
    references: tuple[Reference, ...]
    delete: bool
    """Rows are deleted (collection strategy ``delete``) rather than masked."""
    erase_after: tuple[Key, ...]
    skip: bool

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Names of the key's columns, sorted."""
        return tuple(f.name for f in self.fields.values() if f.primary_key)

    @property
    def categories(self) -> frozenset[str]:
        """Every data category of its fields."""
        return frozenset().union(*(f.categories for f in self.fields.values()))


@dataclass(frozen=True, slots=True)
class DataMap:
    """All collections of a system, and the datasets that must be erased before it."""

    collections: Mapping[Key, Collection]
    after: frozenset[str]
    """Dataset keys, of this or other systems."""


def read(paths: Iterable[Path], schema: str | None) -> DataMap:
    """Read dataset files; ``schema`` is where tables live unless a dataset says so itself.

    Raises ``DataMapFaults``.
    """
    faults: list[str] = []
    collections: dict[Key, Collection] = {}
    after: set[str] = set()
    for path in paths:
        for dataset, extra_after in _datasets(path, faults):
            after |= extra_after
            own_schema = _schema(dataset) or schema
            for source in dataset.collections:
                found = _collection(path.name, dataset, source, own_schema, faults)
                if found.key in collections:
                    faults.append(f"{path.name}: collection {found.key} is described twice")
                collections[found.key] = found
    if faults:
        raise DataMapFaults(faults)
    return DataMap(collections, frozenset(after))


def _datasets(path: Path, faults: list[str]) -> Iterable[tuple[Dataset, set[str]]]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{path.name}: the dataset file cannot be read: {error.strerror}")
        return
    except yaml.YAMLError as error:
        faults.append(f"{path.name}: this is not YAML: {' '.join(str(error).split())}")
        return
    if not isinstance(document, dict) or not isinstance(document.get("dataset"), list):
        faults.append(f"{path.name}: a Fides dataset file has a list named `dataset` at the top")
        return
    for raw in document["dataset"]:
        try:
            dataset = Dataset.model_validate(raw)
        except ValidationError as error:
            faults += [f"{path.name}: {_where(raw, e['loc'])}: {e['msg']}" for e in error.errors(include_input=False)]
            continue
        meta = raw.get("fides_meta") or raw.get("fidesops_meta") or {}
        yield dataset, {*(meta.get("erase_after") or ()), *(meta.get("after") or ())}


def _where(raw: Any, location: Iterable[int | str]) -> str:
    """A place in a dataset by the names of its collection and field rather than their positions."""
    words: list[str] = []
    here = raw
    for step in location:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
        words.append(
            str(here["name"]) if isinstance(step, int) and isinstance(here, dict) and "name" in here else str(step)
        )
    return ".".join(words)


def _schema(dataset: Dataset) -> str | None:
    namespace = (dataset.fides_meta.namespace if dataset.fides_meta else None) or {}
    found = namespace.get("schema")
    return str(found) if found else None


def _collection(
    file: str, dataset: Dataset, source: DatasetCollection, schema: str | None, faults: list[str]
) -> Collection:
    key = Key(dataset.fides_key, source.name)
    inherited = frozenset(source.data_categories or ()) | frozenset(dataset.data_categories or ())
    fields = {f.name: _field(f"{file}: {key}.{f.name}", f, inherited, faults) for f in source.fields}
    references = [r for f in source.fields for r in _references(f)]
    meta = source.fides_meta
    skip = bool(meta and meta.skip_processing)
    if not skip and not any(f.primary_key for f in fields.values()):
        faults.append(
            f"{file}: {key} has no field with `fides_meta.primary_key: true`, so its rows cannot be told apart"
        )
    return Collection(
        key=key,
        file=file,
        schema=schema,
        fields=fields,
        references=tuple(references),
        delete=bool(meta and meta.masking_strategy_override),
        erase_after=tuple(Key(*k.split(".", 1)) for k in (meta.erase_after if meta else None) or ()),
        skip=skip,
    )


def _field(where: str, source: DatasetField, inherited: frozenset[str], faults: list[str]) -> Field:
    meta = source.fides_meta or FidesMeta()
    if source.fields or meta.data_type == "object":
        faults.append(f"{where}: nested fields are not columns; map the column as one field without `fields`")
    if meta.data_type and meta.data_type.endswith("[]"):
        faults.append(f"{where}: array columns cannot be matched or masked; leave `data_type` out or split the table")
    identity = meta.identity
    if identity:
        identity = IDENTITY_TYPES.get(identity, identity)
        if identity not in KNOWN_IDENTITIES and not identity.startswith("custom:"):
            identity = f"custom:{identity}"
    return Field(
        name=source.name,
        categories=frozenset(source.data_categories or ()) | inherited,
        identity=identity,
        primary_key=bool(meta.primary_key),
        read_only=bool(meta.read_only),
        length=meta.length,
        mask=_mask(where, meta, faults),
    )


def _mask(where: str, meta: FidesMeta, faults: list[str]) -> Mask | None:
    override = meta.masking_strategy_override
    if override is None:
        return None
    strategy = STRATEGIES.get(override.strategy)
    if strategy is None:
        known = ", ".join(sorted(STRATEGIES))
        faults.append(f"{where}: masking strategy {override.strategy!r} is not known here; use one of {known}")
        return None
    settings = override.configuration or {}
    return Mask.model_validate({"strategy": strategy, "value": str(settings.get("rewrite_value", "masked"))})


def _references(source: DatasetField) -> Iterable[Reference]:
    for r in (source.fides_meta.references if source.fides_meta else None) or ():
        direction = r.direction.value if r.direction else None
        yield Reference(source.name, r.dataset, r.field, direction == "to", direction is not None)
