# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`push`: the panels as a saved view and a report in a Weights & Biases project."""

from __future__ import annotations

from typing import Any

from lightning_losses.dashboard.panels.catalogue import SECTIONS
from lightning_losses.dashboard.wandb_ui.names import STEP
from lightning_losses.dashboard.wandb_ui.presets import preset_name, presets
from lightning_losses.dashboard.wandb_ui.workspace import (
    DETAILS,
    REPORT_TITLE,
    TITLE,
    blocks,
    reports_package,
    sections,
    workspaces_package,
)

SLUG = "lightninglosses"  # the view's name in its address: how the next push finds it


def push(path: str, charts: bool = False) -> list[str]:
    """Create or update the saved view and the report; return their addresses, the view's first.

    The view is found by its address, the report by its title, so a second push changes them and
    makes no others. In the view, our sections are replaced; sections, filters, colours and
    grouping that others have added stay. The report is written anew.

    Args:
        path: `entity/project`; the project is made if there is none.
        charts: also make custom chart presets (of the entity, private) and show them.

    Raises:
        ValueError: not `entity/project`, no login, or the server says no.
        ImportError: wandb-workspaces is not installed.
    """
    entity, _, project = path.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(f"push needs entity/project, got {path!r}; write e.g. my-team/my-project.")
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "push saves views with wandb-workspaces, which is not installed; write: "
            'pip install "lightning-losses[wandb]"'
        ) from error
    api = connect()
    try:
        ids = make_charts(api, entity) if charts else {}
        # The report first: it makes the project if there is none.
        report = save_report(api, entity, project, ids)
        view = save_view(entity, project, ids)
    except Exception as error:  # wandb raises its own, pydantic's and plain ones alike
        raise ValueError(
            f"Weights & Biases did not take the dashboard of {path} ({type(error).__name__}: "
            f"{str(error).strip()[:300]}). Check the name, and that your account may write there."
        ) from error
    return [str(view.url), str(report.url).replace("=", "")]


def connect() -> Any:
    """The W&B API, logged in.

    Raises:
        ValueError: no API key, a wrong one, or no connection.
    """
    import wandb

    try:
        return wandb.Api()
    except Exception as error:
        raise ValueError(
            f"push needs a Weights & Biases account ({type(error).__name__}: "
            f"{str(error).strip()[:300]}). Run `wandb login`, or set WANDB_API_KEY; without an "
            "account, `lightning-losses report RUN` shows the same panels."
        ) from error


def save_view(entity: str, project: str, charts: dict[str, str]) -> Any:
    """Save the workspace view, new or over the last one of ours."""
    ws = workspaces_package()
    ours = sections(charts)
    names = {*SECTIONS, DETAILS}
    try:
        # Only path and query of the address are read.
        view = ws.Workspace.from_url(f"https://wandb.ai/{entity}/{project}?nw={SLUG}")
    except ValueError as error:
        if "not found" not in str(error):
            raise
        view = ws.Workspace(
            entity=entity,
            project=project,
            name=TITLE,
            settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        )
        view._internal_name = f"nw-{SLUG}-v"  # else a random one, that no later push could find
    view.sections = [*ours, *(one for one in view.sections if one.name not in names)]
    return view.save()


def save_report(api: Any, entity: str, project: str, charts: dict[str, str]) -> Any:
    """Save the report, new or over the last one of ours."""
    wr = reports_package()
    try:
        known = [one.id for one in api.reports(path=f"{entity}/{project}") if is_ours(one)]
    except ValueError:  # there is no such project
        api.create_project(project, entity)
        known = []
    report = wr.Report(
        entity=entity,
        project=project,
        title=REPORT_TITLE,
        description="Losses, confidence, calibration and steps of all runs of this project.",
        blocks=blocks(entity, project, charts),
        width="fluid",
    )
    if known:
        report.id = known[0]
    return report.save()


def is_ours(report: Any) -> bool:
    """Whether a report is the one that `push` writes."""
    return bool(report.display_name == REPORT_TITLE)


def make_charts(api: Any, entity: str) -> dict[str, str]:
    """Make the chart presets that are missing; their ids by table."""
    ids = {}
    for table, (title, spec) in presets().items():
        name = preset_name(table, spec)
        try:
            ids[table] = api.create_custom_chart(
                entity=entity,
                name=name,
                display_name=f"lightning-losses: {title}",
                spec_type="vega2",
                access="private",
                spec=spec,
            )
        except Exception as error:
            if "exist" not in str(error).lower():
                raise
            ids[table] = f"{entity}/{name}"
    return ids
