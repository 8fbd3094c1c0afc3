"""The compose file and the image, as far as they can be checked without an engine."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.settings import Settings
from tests.support.tree import ROOT

ONE_SHOT = {"migrate", "shop-seed"}
OURS = {"migrate", "intake", "worker", "clock"}
SETTINGS = {f"HABEAS_{name.upper()}" for name in Settings.model_fields}
KNOWN = SETTINGS | {f"{name}_FILE" for name in SETTINGS} | {"HABEAS_CONFIG"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def services() -> list[Any]:
    return [pytest.param(name, service, id=name) for name, service in compose()["services"].items()]


def dockerfile() -> list[str]:
    """The image's instructions, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]


@pytest.mark.parametrize(("name", "service"), services())
def test_a_service_is_watched_and_comes_back(name: str, service: dict[str, Any]) -> None:
    if name in ONE_SHOT:
        assert service["restart"].startswith("on-failure")
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert {"test", "interval", "timeout", "start_period", "retries"} <= service["healthcheck"].keys()


@pytest.mark.parametrize(("name", "service"), services())
def test_a_service_is_not_root_and_has_no_more_rights_than_it_needs(name: str, service: dict[str, Any]) -> None:
    assert service["user"] not in {"root", "0", "0:0"}
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    if service["image"].startswith("habeas"):
        assert service["read_only"] is True


@pytest.mark.parametrize(("name", "service"), services())
def test_a_service_has_limits(name: str, service: dict[str, Any]) -> None:
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()


@pytest.mark.parametrize(("name", "service"), services())
def test_a_service_is_given_settings_that_exist(name: str, service: dict[str, Any]) -> None:
    given = {key for key in service.get("environment", {}) if key.startswith("HABEAS_")}
    assert given <= KNOWN


@pytest.mark.parametrize(("name", "service"), services())
def test_a_service_waits_for_services_that_exist_until_they_can_serve(name: str, service: dict[str, Any]) -> None:
    for other, how in service.get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how["condition"] == expected
        assert other in compose()["services"]


def test_every_process_is_there_and_runs_the_same_image() -> None:
    found = compose()["services"]
    assert {tuple(found[name]["command"]) for name in OURS} == {(name,) for name in OURS}
    assert len({found[name]["image"] for name in OURS}) == 1


def test_a_worker_can_be_scaled() -> None:
    worker = compose()["services"]["worker"]
    assert "container_name" not in worker
    assert "ports" not in worker


def test_no_demo_system_starts_unless_asked_for() -> None:
    for name, service in compose()["services"].items():
        assert (service.get("profiles") == ["demo"]) == name.startswith("shop-")


def test_volumes_and_secrets_are_declared() -> None:
    whole = compose()
    for service in whole["services"].values():
        assert set(service.get("secrets", [])) <= whole["secrets"].keys()
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{[^}]*\}", "./", volume).split(":")[0]
            assert source in whole["volumes"] or source == "./" or (ROOT / source).exists()


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"\$\{(\w*(?:PASSWORD|KEY|SECRET)\w*)(:?[-?][^}]*)?\}", text)
    assert used
    assert [name for name, fallback in used if fallback != ":-" and not fallback.startswith(":?")] == []
    example = dict(line.split("=", 1) for line in env_lines(ROOT / ".env.example"))
    assert {name: value for name, value in example.items() if re.search("PASSWORD|KEY|SECRET", name) and value} == {}
    named = {name for name, _ in re.findall(r"\$\{(\w+)([^}]*)\}", text)}
    assert named <= example.keys() | {"HABEAS_VERSION"}


def env_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_new_env_fills_every_secret_and_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/new-env", ".env.example"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["sh", str(tmp_path / "deploy" / "new-env")]
    subprocess.run(command, check=True, capture_output=True)
    written = tmp_path / ".env"
    values = dict(line.split("=", 1) for line in env_lines(written))
    assert all(values.values())
    assert len(set(values.values())) == len(values)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    before = written.read_text()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert written.read_text() == before


def test_the_image_copies_files_that_exist_and_are_let_through() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    sources = [
        source
        for line in dockerfile()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(f"{path}/") for path in let_through), source


def test_every_stage_that_runs_does_so_as_nobody_in_particular() -> None:
    user: dict[str, str] = {}
    stage = ""
    for line in dockerfile():
        if line.startswith("FROM "):
            words = line.split()
            stage = words[-1] if "AS" in words else "final"
            user[stage] = user.get(words[1], "root")
        elif line.startswith("USER "):
            user[stage] = line.split()[1]
    assert {name: who for name, who in user.items() if name != "build"} == {
        "runtime": "10001:10001",
        "demo": "10001:10001",
        "final": "10001:10001",
    }


def test_the_image_is_checked_by_its_health_and_starts_habeas() -> None:
    lines = dockerfile()
    assert any(line.startswith("HEALTHCHECK") and "/livez" in line for line in lines)
    assert 'ENTRYPOINT ["habeas"]' in lines
    environment = " ".join(line for line in lines if line.startswith("ENV "))
    assert set(re.findall(r"(HABEAS_\w+)=", environment)) <= KNOWN
    assert "HABEAS_DATABASE_URL" not in environment
