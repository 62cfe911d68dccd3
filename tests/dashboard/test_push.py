# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses push`, against a stand-in for the Weights & Biases server on 127.0.0.1."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lightning_losses.__main__ import main
from lightning_losses.dashboard.panels.catalogue import PANELS, SECTIONS
from lightning_losses.dashboard.wandb_ui.presets import presets

wandb = pytest.importorskip("wandb")
ws = pytest.importorskip("wandb_workspaces.workspaces")

from lightning_losses.dashboard.wandb_ui.push import push  # noqa: E402
from lightning_losses.dashboard.wandb_ui.workspace import (  # noqa: E402
    REPORT_TITLE,
    TITLE,
    blocks,
    line_plot,
    pattern,
    sections,
)

PATH = "team/project"


class Server(ThreadingHTTPServer):
    """Keeps projects, views and charts, and what was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.projects: set[str] = set()
        self.views: list[dict[str, Any]] = []
        self.charts: dict[str, str] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def answer(self, query: str, values: dict[str, Any]) -> Any:
        """The data that a query or mutation gets."""
        what = re.search(r"(upsertView|createCustomChart|upsertModel)\(", query)
        if what:
            self.sent.append((what.group(1), values))
        if "upsertModel" in query:
            self.projects.add(values["input"]["name"])
            return {"result": {"project": None, "model": None, "inserted": True}}
        if "createCustomChart" in query:
            if values["chartName"] in self.charts:
                raise ValueError("chart with that name already exists")
            self.charts[values["chartName"]] = values["spec"]
            return {"createCustomChart": {"chart": {"id": f"team/{values['chartName']}"}}}
        if "upsertView" in query:
            return {"upsertView": {"view": self.upsert(values), "inserted": not values.get("id")}}
        if "viewer" in query:
            viewer = {"id": "u", "entity": "team", "username": "me", "email": "", "flags": "{}"}
            return {"viewer": viewer | {"teams": {"edges": []}}}
        if "models(" in query:
            edges = [
                {
                    "node": {"__typename": "Project", "id": name, "name": name}
                    | {"entityName": "team", "createdAt": "2026-01-01T00:00:00Z"}
                    | {"isBenchmark": False, "user": None}
                }
                for name in self.projects
            ]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": edges}}
        if "ProjectInternalId" in query:
            known = values["projectName"] in self.projects
            return {"project": {"id": "p", "internalId": "cA=="} if known else None}
        if values.get("project", values.get("name")) not in self.projects:
            return {"project": None}
        views = [
            {"node": view, "cursor": view["id"]}
            for view in self.views
            if view["type"] == values.get("viewType", "runs")
            and values.get("viewName") in (None, view["name"])
        ]
        page = {"endCursor": None, "hasNextPage": False}
        return {"project": {"allViews": {"edges": views, "pageInfo": page}}}

    def upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        """Without an id a new one even under a known name, so that only our care makes it one."""
        keys = ("type", "name", "displayName", "description", "spec")
        new = {key: values[key] for key in keys}
        for view in self.views:
            if view["id"] == values.get("id"):
                view |= new
                return self.complete(view)
        new["id"] = f"VmlldzoxMj{len(self.views)}="
        self.views.append(new)
        return self.complete(new)

    def complete(self, view: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": "project", "entityName": "team"}
        return view | {"project": project, "updatedAt": None}

    def view(self, kind: str) -> dict[str, Any]:
        (found,) = [view for view in self.views if view["type"] == kind]
        return found


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/graphql":  # telemetry
            self.send_error(404)
            return
        body = json.loads(raw)
        try:
            reply: Any = {"data": self.server.answer(body["query"], body.get("variables") or {})}
        except ValueError as error:
            reply = {"data": None, "errors": [{"message": str(error)}]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{one.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it reads the environment once in a process
    yield one
    wandb.teardown()
    one.shutdown()
    thread.join()
    one.server_close()


def panels_of(section: dict[str, Any]) -> list[str]:
    """What a reader sees as the panels' titles."""
    found = []
    for panel in section["panels"]:
        config = panel["config"]
        title = config.get("chartTitle") or config.get("panelDefId") or "(words)"
        found.append(title)
    return found


def saved_sections(server: Server) -> dict[str, dict[str, Any]]:
    spec = json.loads(server.view("project-view")["spec"])
    return {one["name"]: one for one in spec["section"]["panelBankConfig"]["sections"]}


def test_two_pushes_make_one_view_and_one_report(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", PATH]) == 0
    first = capsys.readouterr().out.split()
    assert [what for what, _ in server.sent] == ["upsertModel", "upsertView", "upsertView"]
    assert server.projects == {"project"}
    assert [view["displayName"] for view in server.views] == [REPORT_TITLE, TITLE]
    assert not server.charts

    base = f"http://127.0.0.1:{server.server_port}/team/project"
    view, report = (word for word in first if word.startswith("http"))
    assert view == f"{base}?nw=lightninglosses"
    assert report == f"{base}/reports/lightning-losses-report--VmlldzoxMj0"

    # Somebody adds a section of their own, and deletes one of ours.
    mine = server.view("project-view")
    spec = json.loads(mine["spec"])
    own = spec["section"]["panelBankConfig"]["sections"]
    own[0] = own[0] | {"name": "Mine"}
    spec["section"]["runSets"][0]["search"]["query"] = "good"
    mine["spec"] = json.dumps(spec)

    assert main(["push", PATH]) == 0
    assert capsys.readouterr().out.split() == first
    assert len(server.views) == 2
    ids = {view["id"] for view in server.views}
    assert {values["id"] for what, values in server.sent[3:]} == ids
    assert [*saved_sections(server)] == [*SECTIONS, "Details", "Mine"]
    spec = json.loads(server.view("project-view")["spec"])
    assert spec["section"]["runSets"][0]["search"]["query"] == "good"


def test_what_a_reader_sees(server: Server) -> None:
    push(PATH)
    found = saved_sections(server)
    assert [*found] == [*SECTIONS, "Details"]
    for name in SECTIONS:
        titles = panels_of(found[name])
        assert titles[0] == "(words)"
        text = found[name]["panels"][0]["config"]["value"]
        for panel in PANELS:
            if panel.section == name and not panel.detail:
                assert any(title.startswith(panel.title) for title in titles), panel.title
                assert panel.healthy in text
        config = found[name]["flowConfig"]
        assert config["columnsPerPage"] * config["rowsPerPage"] >= len(titles)
        assert all(
            panel["config"]["xAxis"] == "trainer/global_step"
            for panel in found[name]["panels"]
            if panel["viewType"] == "Run History Line Plot"
        )
    assert "Step radius r (limit 1)" in panels_of(found["Steps"])
    (media,) = [p for p in found["Calibration"]["panels"] if p["viewType"] == "Media Browser"]
    assert media["config"]["mediaKeys"] == ["calibration/val/diagram", "calibration/test/diagram"]
    assert media["config"]["gallerySettings"] == {"axis": "step"}
    detailed = panels_of(found["Details"])
    assert len(detailed) == 1 + sum(panel.detail for panel in PANELS)

    report = json.loads(server.view("runs")["spec"])
    grids = [block for block in report["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == len(SECTIONS)
    for grid in grids:
        panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
        places = {(panel["layout"]["x"], panel["layout"]["y"]) for panel in panels}
        assert len(places) == len(panels)
        assert max(x for x, _ in places) <= 16
    assert all(panel.healthy in json.dumps(report) for panel in PANELS if not panel.detail)


def test_charts_only_when_asked_and_only_once(server: Server) -> None:
    push(PATH, charts=True)
    push(PATH, charts=True)
    assert len(server.charts) == len(presets()) == 2
    for values in (values for what, values in server.sent if what == "createCustomChart"):
        assert values["access"] == "PRIVATE"
        assert json.loads(values["spec"])["data"] == {"name": "wandb"}
    places = {"Calibration": "reliability", "Attention and Representation": "attention_entropy"}
    for section, table in places.items():
        panels = saved_sections(server)[section]["panels"]
        (config,) = [panel["config"] for panel in panels if panel["viewType"] == "Vega2"]
        # The table is the one that the callback logs, and every column that is drawn is named.
        assert f"tables/{table}" in json.dumps(config["userQuery"])
        spec = server.charts[config["panelDefId"].removeprefix("team/")]
        assert set(re.findall(r"\$\{field:(\w+)\}", spec)) == set(config["fieldSettings"])


def test_presets_draw(tmp_path: Any) -> None:
    """With W&B's placeholders filled in, as its page does, they are charts with marks in them."""
    vl_convert = pytest.importorskip("vl_convert")
    bins = [
        {"stage": stage, "lower": 0.0, "upper": 0.5, "count": 3, "confidence": 0.4, "accuracy": 0.3}
        for stage in ("val", "test")
    ]
    heads = [{"layer": "a", "head": head, "entropy_fraction": 0.5} for head in (0, 1)]
    for rows, (_, spec) in zip((bins, heads), presets().values(), strict=True):
        text = re.sub(r"\$\{field:(\w+)\}", r"\1", json.dumps(spec))
        svg = vl_convert.vegalite_to_svg({**json.loads(text), "data": {"values": rows}})
        assert "NaN" not in svg
        assert svg.count("aria-roledescription=") >= len(rows)


def test_without_a_key_it_says_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert main(["push", PATH]) == 2
    error = capsys.readouterr().err
    assert "wandb login" in error
    assert "WANDB_API_KEY" in error
    assert server.sent == []


def test_a_server_that_refuses_is_an_error_in_words(server: Server) -> None:
    def refuse(query: str, values: dict[str, Any]) -> Any:
        if "upsert" in query:
            raise ValueError("permission denied")
        return Server.answer(server, query, values)

    server.answer = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"did not take the dashboard of team/project.*permission"):
        push(PATH)


@pytest.mark.parametrize("path", ["project", "a/b/c", "/project", "team/"])
def test_a_path_is_entity_and_project(path: str) -> None:
    with pytest.raises(ValueError, match="entity/project"):
        push(path)


def test_without_wandb_workspaces_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ImportError, match=r'pip install "lightning-losses\[wandb\]"'):
        push(PATH)


def test_objects_serialise_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    spec = json.dumps([one._spec for one in sections({})])
    assert len(json.loads(spec)) == len(SECTIONS) + 1
    assert len(blocks("team", "project", {})) > len(SECTIONS)


def test_globs_become_one_expression() -> None:
    assert pattern(["step_radius/rho_*", "a.b"]) == r"^(step_radius/rho_.*|a\.b)$"
    names = ["calibration/val/ece", "calibration/val/dataloader_idx_1/ece", "calibration/val/mce"]
    fits = re.compile(pattern(["calibration/*/ece"]))
    assert [bool(fits.match(name)) for name in names] == [True, True, False]
    # Whole names need none.
    (scale,) = [panel for panel in PANELS if panel.name == "temperature"]
    assert line_plot(scale).y == ["post_hoc/temperature"]
    assert line_plot(scale).metric_regex is None
