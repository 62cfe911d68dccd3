# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the page of a monitor or controller has beside its docstring: curves, charts, a program.

Curves of healthy and sick trainings are those that ``benchmarks/curves.py`` has written. `program`
is run for every key by ``tests/project/test_docs.py``; what the charts mean is said where the
report takes it from, in ``dashboard/panels``.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from lightning_losses.dashboard.panels.catalogue import PANELS, Panel

sys.path.append(str(Path(__file__).parent))  # mkdocs loads a hook by its file alone
from drawing import BLUE, ORANGE, Line, Tick, svg, ticks

CURVES = Path(__file__).parents[2] / "benchmarks" / "results" / "curves.json"

#: Arguments that make a monitor measure within the few steps of the program, or that it must have.
ARGUMENTS = {
    "attention_entropy": "every_n_steps=2",
    "entropy": "every_n_steps=2",
    "entropy_law": 'reward="train/reward", every_n_steps=2',
    "entropy_target": "target=1.0",
    "gradient_rms": "every_n_steps=2",
    "logit_health": "every_n_steps=2",
    "ood": "torch.utils.data.DataLoader([(3 * row, label) for row, label in data], 32)",
    "step_radius": "every_n_steps=4",
    "term_balance": "every_n_steps=4",
}
#: Losses, where cross-entropy alone has nothing to show.
LOSSES = {
    "elastic_memory": '["ce", "elastic"]',
    "entropy_target": '["ce", "entropy_bonus"]',
    "term_balance": '["ce", "logsumexp_penalty"]',
}
#: The forward pass, where it is not ``self.body(x)``.
FORWARD = {
    "attention_entropy": [
        "tokens = x.reshape(-1, 5, 4)",
        "h = self.attend(tokens, tokens, tokens)[0].flatten(1)",
    ],
    "entropy_law": ["h = self.body(x)", 'self.log("train/reward", h.sigmoid().mean())'],
}
#: What else ``compute_loss`` gets.
MORE = {
    "loss_by": "group_id=(x[:, 5] > 0).long()",
    "neural_collapse": "head_weight=self.head.weight",
    "sample_value": "sample_index=i",
}
LAYERS = {"attention_entropy": ["self.attend = torch.nn.MultiheadAttention(4, 2)"]}


def program(key: str, made: str) -> str:
    """A training of seconds with this callback, which prints what it logged."""
    name = made.rpartition(".")[2]
    home = "dashboard" if key == "wandb" else "callbacks"
    loggers = 'logger=WandbLogger(project="demo", offline=True), ' if key == "wandb" else ""
    layers = LAYERS.get(key, ["self.body = torch.nn.Sequential(torch.nn.Linear(20, 20), Tanh())"])
    forward = FORWARD.get(key, ["h = self.body(x)"])
    imports = ["import lightning as L", "import torch"]
    if key == "wandb":
        imports.append("from lightning.pytorch.loggers import WandbLogger")
    if key not in LAYERS:
        imports.append("from torch.nn import Tanh")
    more = MORE.get(key, "")
    lines = [
        *imports,
        "",
        "from lightning_losses import LossMixin, build_objective",
        f"from lightning_losses.{home} import {name}",
        "",
        "",
        "class Classifier(LossMixin, L.LightningModule):",
        "    def __init__(self):",
        "        super().__init__()",
        *(f"        {line}" for line in layers),
        "        self.head = torch.nn.Linear(20, 4)",
        f"        self.loss = build_objective({LOSSES.get(key, chr(34) + 'ce' + chr(34))})",
        "",
        "    def training_step(self, batch, batch_idx):",
        "        x, y = batch",
        *(f"        {line}" for line in forward),
        "        return self.compute_loss(logits=self.head(h), target=y, features=h)",
        "",
        "    validation_step = training_step",
        "",
        "    def configure_optimizers(self):",
        "        return torch.optim.AdamW(self.parameters(), lr=0.01)",
        "",
        "",
        "x = torch.randn(256, 20)",
        "data = torch.utils.data.TensorDataset(x, x[:, :4].argmax(1))",
        "loader = torch.utils.data.DataLoader(data, 32)",
        f"watch = {name}({ARGUMENTS.get(key, '')})",
        f"trainer = L.Trainer(max_epochs=2, {loggers}callbacks=[watch])",
        "trainer.fit(Classifier(), loader, loader)",
        "print(trainer.callback_metrics)",
    ]
    if more:
        lines = [line.replace("features=h)", f"features=h, {more})") for line in lines]
    if key == "sample_value":  # each sample comes with its number
        old, new = "TensorDataset(x, x[:, :4].argmax(1))", "TensorDataset(x, x[:, :4].argmax(1), i)"
        lines = [
            line.replace(old, new).replace("x, y = batch", "x, y, i = batch") for line in lines
        ]
        lines.insert(lines.index("x = torch.randn(256, 20)"), "i = torch.arange(256)")
    return "\n".join(lines) + "\n"


def curves(key: str) -> list[str]:
    """Healthy and sick trainings of ``benchmarks/alarms.py`` as this callback saw them, as SVG."""
    pictures = json.loads(CURVES.read_text())["curves"].get(key, [])
    out = []
    for picture in pictures:
        lines = [line(one) for one in picture["lines"]]
        steps = [x for one in lines for x, _ in one.points]
        across = [Tick(x, f"{x:g}") for x in ticks(min(steps), max(steps))]
        out.append(
            f"<figure>{svg(lines, across, 'step', log=picture['log'])}"
            f"<figcaption>{escape(picture['what'])}</figcaption></figure>"
        )
    return out


def line(one: dict[str, Any]) -> Line:
    """A training's curve; a dot where the monitor spoke."""
    spoke = one.get("spoke")
    label = one["label"] if spoke is None else f"{one['label']}; told at step {spoke}, the dot"
    points = [(x, y) for x, y in one["points"]]
    return Line(label, points, ORANGE if one["sick"] else BLUE, one["sick"], spoke)


def reading(made: str) -> str:
    """The charts of what this class logs: what they are, and what healthy looks like."""
    name = made.rpartition(".")[2]
    charts = [one for one in PANELS if one.source.split(" ")[0] == name]
    if not charts:
        return ""
    lines = ["| chart of the report | logged as | what it is | healthy |", "|---|---|---|---|"]
    return "\n".join(lines + [row(one) for one in charts])


def row(panel: Panel) -> str:
    """A chart as a row of a table."""
    names = ", ".join(f"`{key}`" for key in panel.keys) or f"`{panel.table}.csv`"
    unit = f" ({panel.unit})" if panel.unit else ""
    about, healthy = (text.replace("|", "\\|") for text in (panel.about, panel.healthy))
    return f"| {panel.title}{unit} | {names} | {about} | {healthy} |"
