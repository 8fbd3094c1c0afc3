"""The example in the README, run as it stands: through RabbitMQ, against real processes and a real log file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support.deployment import deployed
from tests.support.pages import page
from tests.support.tree import ROOT

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SYSTEMS = {
    "systems": [
        {
            "name": "logs",
            "connector": "logs",
            "cannot": dict.fromkeys(["rectify", "restrict", "suppress"], "a log is never changed afterwards"),
            "config": {
                "root": "logs",
                "sources": [
                    {
                        "name": "app",
                        "files": ["app.jsonl.1"],
                        "format": "jsonl",
                        "fields": {"email": {"identity": "email"}},
                    }
                ],
            },
        }
    ]
}


def definitions(folder: Path, source: str) -> dict[str, str]:
    """A small deployment: one folder of logs, one source that may ask."""
    logs = folder / "logs"
    logs.mkdir()
    (logs / "app.jsonl.1").write_text('{"email": "ada@example.org"}\n{"email": "bob@example.org"}\n')
    shutil.copytree(ROOT / "workflows", folder / "workflows")
    (folder / "workflows" / "categories.yaml").write_text("categories: {contact: [user.contact]}\n")
    for right in ("access", "rectification", "restriction", "portability", "objection"):
        (folder / "workflows" / f"{right}.yaml").unlink()
    (folder / "systems.yaml").write_text(yaml.safe_dump(SYSTEMS))
    known = {"source": source, "secrets": [SECRET], "trusted_to_verify": True}
    (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [known]}))
    return {f"HABEAS_{name.upper()}": str(folder / f"{name}.yaml") for name in ("systems", "sources")} | {
        "HABEAS_WORKFLOWS": str(folder / "workflows")
    }


def test_the_example_in_the_readme_erases_ada_and_tells_so(
    tmp_path: Path, postgres_database: str, rabbitmq_vhost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = page("README.md").blocks("python")
    assert len(example.splitlines()) <= 12
    (broker,) = re.findall(r'"(amqp://[^"]+)"', example)
    (source,) = re.findall(r'source="([^"]+)"', example)
    environment = {
        "HABEAS_DATABASE_URL": postgres_database,
        "HABEAS_BROKER_URL": rabbitmq_vhost,
        **definitions(tmp_path, source),
    }
    ready = example.replace(broker, rabbitmq_vhost).replace("whsec_…", SECRET)
    with deployed(tmp_path / "run", environment, "intake", "worker", "clock"):
        exec(compile(ready, "README.md", "exec"), {})
    assert capsys.readouterr().out == "completed\nlogs ['executed', 'verified']\n"
    assert (tmp_path / "logs" / "app.jsonl.1").read_text() == '{"email": "bob@example.org"}\n'
