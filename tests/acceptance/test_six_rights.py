"""One message per right goes in; four real systems are as they should be; one completion comes out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.shop.check import check, snapshot
from examples.shop.world import Shop
from tests.support.account_service import account_service
from tests.support.deployment import rows

OpenShop = Callable[..., Shop]


def test_every_right_is_carried_out_in_all_four_systems_and_answered(
    open_shop: OpenShop, deploy: Any, broker_url: str, tmp_path: Path
) -> None:
    shop = open_shop(people=60, requests=24)
    before = snapshot(shop)
    with deploy(shop, broker_url) as deployment, account_service(deployment) as service:
        for request in shop.cast.requests:
            service.ask(request)
        answers = service.await_all(shop.cast.requests)
        packages = [r for r in shop.cast.requests if r.right in {"access", "portability"}]
        assert all(answers[r.id].dataref for r in packages)
        contents = {r.id: _open_package(deployment, answers[r.id].dataref, tmp_path) for r in packages[:3]}
        audit = deployment.habeas("audit", "verify", "--all").stdout
        stopped = {name: deployment.stop(name) for name in list(deployment.processes)}
        logs = deployment.logs()
        chains = rows(deployment.runtime(), "SELECT count(*) AS n FROM request WHERE audit_seq > 0")[0].n

    assert check(before, shop, shop.cast.requests) == []
    for request in shop.cast.requests:
        answer = answers[request.id]
        assert str(answer.resolution) in {"completed", "completed_with_exceptions"}
        reports = {s["system"] for s in answer.data["systems"]}
        assert reports == {"analytics", "logs", "payments", "users"}
        for system in answer.data["systems"]:
            for step in system["steps"]:
                assert step["outcome"] != "unsupported" or step["note"], "what can't be done says why"
                assert all(r["reason"] and r["legal_basis"] and r["until"] for r in step["retained"])
    for request in packages[:3]:
        text = contents[request.id]
        assert request.person.email in text, "the package holds the person's own data"
        assert not any(b.email in text for b in shop.cast.bystanders), "and nobody else's"
    assert all(code == 0 for code in stopped.values()), stopped
    assert chains == len(shop.cast.requests), audit
    for person in [r.person for r in shop.cast.requests]:
        assert person.email not in logs
        assert person.user_id not in logs


def _open_package(deployment: Any, dataref: str, folder: Path) -> str:
    """Everything in a request's package, as one text."""
    request = dataref.rpartition(":")[2]
    out = folder / f"{request}.zip"
    deployment.habeas("package", request, "--out", str(out))
    assert out.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(io.BytesIO(out.read_bytes())) as archive:
        assert archive.testzip() is None
        index = json.loads(archive.read("index.json"))
        assert index
        return "\n".join(archive.read(name).decode(errors="replace") for name in archive.namelist())
