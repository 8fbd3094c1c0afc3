"""The only reader of the environment and of the settings file.

A setting, ``lease_seconds`` say, is read from the environment variable ``HABEAS_LEASE_SECONDS``, or else from the file
that ``HABEAS_LEASE_SECONDS_FILE`` names, or else from the YAML file that ``HABEAS_CONFIG`` names (or
``habeas up`` left in its home), or has its default. Secrets are never printed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from orchestrator.errors import ConfigurationError, Fault

PREFIX = "HABEAS_"
FILE = "settings.yaml"
"""What `habeas up` writes into its home, and what is read from there when ``HABEAS_CONFIG`` says nothing."""


def _shipped(folder: str) -> Path:
    """A folder of data that is installed beside the packages."""
    return Path(__file__).resolve().parent.parent / folder


class Settings(BaseModel):
    """Every setting there is. docs/reference/settings.md lists them, and a test holds it complete."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database_url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL: the truth. postgresql://user:password@host/db"
    )
    broker_url: SecretStr = Field(
        SecretStr(""), description="amqp://… for RabbitMQ; pgmq:// for the database itself (the default when empty)."
    )
    master_key: SecretStr = Field(SecretStr(""), description="Master keys as id:base64, the current one first.")
    systems: Path = Field(Path("systems.yaml"), description="The systems file.")
    sources: Path = Field(Path("sources.yaml"), description="Who may ask for what, and how they sign.")
    workflows: Path = Field(_shipped("workflows"), description="The folder of workflow definitions.")
    artifacts: Path = Field(Path("artifacts"), description="Folder for sealed gathered data too big for the database.")
    home: Path = Field(Path(".habeas"), description="Where `habeas up` keeps its embedded PostgreSQL and its keys.")

    lease_seconds: float = Field(10, gt=0, le=3600, description="How long a claim holds without a heartbeat.")
    claim_batch: int = Field(100, ge=1, le=10_000, description="The most steps one claim takes.")
    intake_batch: int = Field(200, ge=1, le=5000, description="The most messages admitted in one transaction.")
    intake_linger_ms: int = Field(
        50, ge=0, le=1000, description="How long intake waits for a batch to grow while messages come in numbers."
    )
    sweep_seconds: float = Field(1, gt=0, le=60, description="The rhythm of timers, expired leases and lost doorbells.")
    retention_sweep_seconds: float = Field(60, gt=0, description="The rhythm of purges and audit checkpoints.")
    outbox_keep_days: int = Field(7, ge=0, description="How long events stay for look-up, once published.")
    quarantine_keep_days: int = Field(30, ge=0, description="How long refused messages are kept.")
    steps_keep_days: int = Field(
        90, ge=0, description="How long after closing steps are rows of their own; then the audit trail tells of them."
    )
    max_message_bytes: int = Field(262_144, ge=1024, description="Larger messages are refused.")
    worker_processes: int = Field(2, ge=1, le=256, description="Child processes of one `habeas worker`.")
    grace_seconds: float = Field(30, ge=0, description="How long a process may take to end after SIGTERM.")
    database_pool: int = Field(5, ge=1, le=100, description="Database connections of one process.")
    health_host: str = Field("127.0.0.1", description="Where /livez, /readyz and /metrics listen.")
    health_port: int = Field(8080, ge=0, le=65535, description="Their port; 0: off.")
    default_regulation: str = Field("gdpr", description="For requests whose message and source name none.")
    event_source: str = Field("/habeas", description="The CloudEvents source of our events.")
    event_secret: SecretStr = Field(SecretStr(""), description="whsec_…: signs our events, when set.")
    log_format: Literal["console", "json"] = Field("console", description="console or json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    environment: dict[str, SecretStr] = Field(
        {}, description="Values for {env: NAME} in definitions, where the environment has none. In the file only."
    )

    def lookup(self) -> dict[str, str]:
        """What ``{env: NAME}`` in definitions finds: the environment, then the settings file's own values."""
        return {**{name: value.get_secret_value() for name, value in self.environment.items()}, **os.environ}


SECRETS = frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def read(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings. ``given`` wins over everything. Raises ``ConfigurationError`` naming every faulty setting."""
    env = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    beside = (
        Path(str(given.get("home") or env.get(PREFIX + "HOME", "") or Settings.model_fields["home"].default)) / FILE
    )
    config = env.get(PREFIX + "CONFIG", "") or (str(beside) if environment is None and beside.exists() else "")
    if config:
        values, faults = _file(Path(config))
    for name in Settings.model_fields.keys() - {"environment"}:
        variable = PREFIX + name.upper()
        if variable in env:
            values[name] = env[variable]
        elif variable + "_FILE" in env:
            try:
                values[name] = Path(env[variable + "_FILE"]).read_text(encoding="utf-8").removesuffix("\n")
            except (OSError, UnicodeDecodeError):
                faults.append(Fault("names a file that cannot be read", field=variable + "_FILE"))
    known = {PREFIX + n.upper() for n in Settings.model_fields}
    known |= {k + "_FILE" for k in known} | {PREFIX + "CONFIG"}
    strange = sorted(k for k in env if k.startswith(PREFIX) and k not in known and not k.startswith("HABEAS_TEST_"))
    faults += [Fault("is not a setting; is it misspelt?", field=k) for k in strange]
    try:
        settings = Settings.model_validate({**values, **given})
    except ValidationError as error:
        faults += [
            Fault(str(e["msg"]), field=".".join(str(p) for p in e["loc"]))
            for e in error.errors(include_url=False, include_input=False)
        ]
        settings = None
    if faults or settings is None:
        raise ConfigurationError("the settings have faults", faults)
    return settings


def _file(path: Path) -> tuple[dict[str, Any], list[Fault]]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError):
        return {}, [Fault("cannot be read", file=str(path))]
    except yaml.YAMLError:
        return {}, [Fault("is not YAML", file=str(path))]
    if not isinstance(data, dict):
        return {}, [Fault("must be a mapping of settings", file=str(path))]
    # Paths in the file start at the file's own folder, so that it can be moved together with what it names.
    for name, field in Settings.model_fields.items():
        if field.annotation is Path and isinstance(data.get(name), str):
            data[name] = path.parent / data[name]
    return data, []
