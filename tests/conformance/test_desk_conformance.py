"""A manual system keeps the contract's laws too: here with a paper archive, and somebody who does as asked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.conformance import ConnectorConformance, World
from connectors.contract import Action, Identity, Pending, Task
from connectors.desk import Desk, DeskConfig


class PaperArchive:
    """Folders by user id, and the clerk who works with them."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, Any]] = {
            name: {"letters": [f"dear {name}"], "name": name.title(), "stamps": []} for name in ("ada", "bob", "eve")
        }
        self.done: set[str] = set()

    def clerk(self, task: Task, pending: Pending) -> Mapping[str, Any]:
        """Do what the desk waits for, and report it."""
        (name,) = task.values("user_id")
        folder = self.folders.get(name)
        if folder is None:
            return {"decision": "done", "outcome": "no_match", "actor": "clerk"}
        report: dict[str, Any] = {"decision": "done", "actor": "clerk", "counts": {"folders": 1}}
        match task.action:
            case Action.ERASE:
                del self.folders[name]
            case Action.RECTIFY:
                folder["name"] = task.corrections["user.name"]
            case Action.ACCESS:
                report |= {"counts": {}, "records": {"letters": [{"text": text} for text in folder["letters"]]}}
            case _:
                folder["stamps"] = [str(task.action)]
        return report


class TestDeskConformance(ConnectorConformance):
    actions = frozenset({Action.ACCESS, Action.ERASE, Action.RECTIFY, Action.RESTRICT, Action.SUPPRESS})
    reaches_out = False

    @pytest.fixture
    def world(self) -> World:
        archive = PaperArchive()
        config = DeskConfig.model_validate(
            {
                "name": "paper archive",
                "by": "records office",
                "categories": ["user.content.private"],
                "identified_by": ["user_id"],
                "instructions": {str(action): "As the label on the folder says." for action in self.actions},
            }
        )
        return World(
            connector=Desk("archive", config),
            person=(Identity("user_id", "ada"),),
            other=(Identity("user_id", "bob"),),
            stranger=(Identity("user_id", "zoe"),),
            snapshot=lambda: {
                label: copy.deepcopy(archive.folders.get(name))
                for label, name in (("person", "ada"), ("other", "bob"), ("third", "eve"))
            },
            respond=archive.clerk,
        )
