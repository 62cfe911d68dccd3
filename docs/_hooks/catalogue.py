# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Pages of the site that are made when it is built: one for every key, and their list.

What stands on them is read from the YAML, the docstring and ``config/facts.json``, so nothing can
fall behind. `example` is run for every loss by ``tests/project/test_docs.py``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from mkdocs.structure.files import File, Files

from lightning_losses.config.catalogue import GROUPS, keys, summary, yaml_text
from lightning_losses.config.facts import Facts, docstring, facts
from lightning_losses.named_tensors import NAMED_TENSORS, NamedTensor

sys.path.append(str(Path(__file__).parent))  # mkdocs loads a hook by its file alone
from curves import curves, drawable
from formula import lead
from watching import curves as watched_curves
from watching import program, reading

ROWS, CLASSES = 8, 5
STUDIES = Path(__file__).parents[2] / "examples" / "reproduce" / "results"
GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
VERDICTS = ("shown", "not told apart", "the opposite")

#: Group -> title, how it is chosen on the command line, what it is.
TITLES = {
    "loss": ("Losses", "loss={}", "What the objective is made of."),
    "target": (
        "Target transforms",
        "+target@loss.ce.target_transform={}",
        "Turn a target into a distribution over the classes, in front of a loss that takes one.",
    ),
    "weighting": (
        "Row weightings",
        "+weighting@loss.ce.row_weighting={}",
        "Weigh rows by their losses or by other named tensors; the weights carry no gradient.",
    ),
    "head": ("Heads", "+head={}", "Modules that own the class weights and give logits."),
    "provider": (
        "Providers",
        "+provider@loss.NAME.provider.TENSOR={}",
        "Make a named tensor that a loss needs and the step does not pass.",
    ),
    "schedule": ("Schedules", "+schedule@loss.ce.weight={}", "Weights that move while training."),
    "balance": (
        "Balance",
        "+balance={}",
        "Weights of terms that find themselves while training: rules of `TermBalancer`.",
    ),
    "callbacks": ("Monitors and controllers", "callbacks=[{}]", "Lightning callbacks."),
    "kernel": ("Kernels", "kernel={}", "How the softmax statistics are computed; see Kernels."),
    "logger": ("Loggers", "logger={}", "Where metrics go."),
}

#: Of keys whose place depends on what they make.
CHOSEN = {
    "ema_teacher": "+provider@loss.kd.provider.teacher_logits=ema_teacher",
    "frozen_teacher": "+provider@loss.kd.provider.teacher_logits=frozen_teacher",
    "pgd": "+provider@loss.trades.provider.logits_adv=pgd",
    "queue": "+provider@loss.supcon.provider.ref_features=queue",
    "stored_teacher": "+provider@loss.kd.provider.teacher_logits=stored_teacher",
}

SCOPES = {
    "rows": "a value a row; `mask`, `sample_weight` and `ignore_index` apply to it.",
    "pairs": "rows are compared with each other, over several ranks all rows of all ranks.",
    "batch": "one number for the batch of all ranks.",
    "parameters": "a penalty on parameters, whatever rows the batch has.",
}

#: How an example makes a named tensor. What a network would give requires a gradient.
TENSORS = {
    "logits": f"torch.randn({ROWS}, {CLASSES}, requires_grad=True)",
    "logits_adv": f"torch.randn({ROWS}, {CLASSES}, requires_grad=True)",
    "teacher_logits": f"torch.randn({ROWS}, {CLASSES})",
    "target": f"torch.randint({CLASSES}, ({ROWS},))",
    "features": f"torch.randn({ROWS}, 4, requires_grad=True)",
    "other_logits": f"torch.randn({ROWS}, {CLASSES}, requires_grad=True)",
    "subnet_logits": f"torch.randn({ROWS}, 2, {CLASSES}, requires_grad=True)",
    "clusters": f"torch.randint(3, ({ROWS}, 2))",
    "ref_features": f"torch.randn({CLASSES}, 4)",
    "kernel_points": "torch.randn(3, 4)",
    "attention": f"[torch.randn({ROWS}, 2, 3, 3, requires_grad=True).softmax(-1)]",
    "list_id": f"torch.arange({ROWS}) // 4",
    "sequence_id": f"torch.arange({ROWS}) // 4",
    "advantage": f"torch.randn({ROWS})",
    "old_log_prob": f"-torch.rand({ROWS})",
    "ref_log_prob": f"-torch.rand({ROWS})",
    "pair_id": f"torch.arange({ROWS}) // 4",
    "chosen": f"torch.arange({ROWS}) % 4 < 2",  # two tokens a response
    "sample_index": f"torch.arange({ROWS})",
    "class_similarity": f"torch.randn({ROWS}, {CLASSES})",
    "module": f"torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, {CLASSES}))",
    "quantiles": f"torch.randn({ROWS}, 5, requires_grad=True)",
    "estimate": f"torch.randn({ROWS}, 3, requires_grad=True)",
    "reference": f"torch.randn({ROWS}, 3)",
    "next_logits": f"torch.randn({ROWS}, {CLASSES})",
    "reward": f"torch.randn({ROWS})",
    "discount": f"torch.full(({ROWS},), 0.99)",
    "logit_map": f"torch.randn(2, {CLASSES}, 16, 16, requires_grad=True)",
    "label_map": f"torch.randint({CLASSES}, (2, 16, 16))",
    "skeleton_map": f"torch.randint({CLASSES}, (2, 16, 16))",
    "region_map": f"torch.randn(2, {CLASSES}, 16, 16)",
    "sensitive": f"torch.randn({ROWS}, 2)",
    "bag_id": f"torch.arange({ROWS}) // 4",
    "bag_target": f"torch.arange({ROWS}) // 4 * 1.0",
    "bag_proportion": f"torch.full(({ROWS}, {CLASSES}), 1 / {CLASSES})",
    "profit": f"torch.randn({ROWS})",
    "logits_deep": f"torch.randn({ROWS}, requires_grad=True)",
    "logits_shallow": f"torch.randn({ROWS}, requires_grad=True)",
    "score": f"torch.randn({ROWS}, requires_grad=True)",
    "log_q": f"torch.randn({ROWS})",
    "noise_score": f"torch.randn({ROWS}, 3, requires_grad=True)",
    "noise_log_q": f"torch.randn({ROWS}, 3)",
    "log_marginal": f"torch.randn({ROWS}, requires_grad=True)",
    "next_log_marginal": f"torch.randn({ROWS}, requires_grad=True)",
    "aspect_logits": f"torch.randn({ROWS}, 3, requires_grad=True)",
    "aspect_target": f"torch.rand({ROWS}, 3)",
    "variance": f"torch.ones({ROWS}, 3, requires_grad=True)",
    **dict.fromkeys(("residual", "above", "below"), f"torch.ones({ROWS}, 3, requires_grad=True)"),
    "x0": f"torch.randn({ROWS}, 3)",
    "x1": f"torch.randn({ROWS}, 3)",
    "concept_logits": f"torch.randn({ROWS}, {CLASSES}, requires_grad=True)",
    "logits_positive": f"torch.randn({ROWS}, 3, requires_grad=True)",
    "logits_negative": f"torch.randn({ROWS}, 3, requires_grad=True)",
    "inverse_propensity": f"1 + torch.rand({ROWS})",
    "old_class_map": "torch.rand(2, 16, 16)",
    "solutions": f"torch.randint(2, ({ROWS}, 3, {CLASSES}))",
    "solution_value": f"torch.randn({ROWS}, 3)",
}

#: The same of a target, by the first kind that a loss takes.
TARGETS = {
    "class": f"torch.randint({CLASSES}, ({ROWS},))",
    "soft": f"torch.randn({ROWS}, {CLASSES}).softmax(-1)",
    "binary": f"torch.randint(2, ({ROWS}, {CLASSES}))",
    "level": f"torch.randint({CLASSES}, ({ROWS},))",
    "label": f"torch.randint({CLASSES}, ({ROWS},))",
    "real": f"torch.rand({ROWS})",
    "map": f"torch.randint({CLASSES}, (2, 16, 16))",
    "none": "None",
}

#: What the kinds mean, in words.
KINDS = {
    "class": "a class a row, `(N,)`",
    "soft": "a distribution over the classes, `(N, C)`",
    "binary": "yes or no, shaped as the logits",
    "level": "an ordered integer",
    "label": "any integer, where only equal or not matters",
    "real": "a number",
    "map": "an image of classes",
}

#: Where the usual tensor will not do: what this key means by it.
TWO_VIEWS = {"features": f"torch.randn({ROWS}, 2, 4, requires_grad=True)"}
BINS = {"logits": f"torch.randn({ROWS}, 51, requires_grad=True)"}
PARTLY = {"target": f"torch.randint({CLASSES + 1}, ({ROWS},)) - 1"}  # -1: not labelled
YES_NO = {"target": f"torch.randint(2, ({ROWS},))"}
SCORES = {"logits": f"torch.randn({ROWS}, requires_grad=True)", **YES_NO}
SPECIAL: dict[str, dict[str, str]] = {
    "barlow_twins": TWO_VIEWS,
    "clip": TWO_VIEWS,
    "hyperbolic_contrastive": TWO_VIEWS,
    "pairwise_confusion": TWO_VIEWS,
    "weighted_info_nce": TWO_VIEWS,
    "labelled_ce": PARTLY,
    "nt_xent": TWO_VIEWS,
    "siglip": TWO_VIEWS,
    "sfda_entropy_kl_prior": {"class_prior": f"torch.full((2, {CLASSES}), 1 / {CLASSES})"},
    "group_dro": {"group_id": f"torch.arange({ROWS}) % 2"},
    "hl_gauss": BINS,
    "two_hot": BINS,
    "bce": SCORES,
    "binary_focal": SCORES,
    "tri_bce": YES_NO,
    "mann_whitney": SCORES,
    "soft_topk": {  # more labels than k
        "logits": f"torch.randn({ROWS}, 10, requires_grad=True)",
        "target": f"torch.randint(2, ({ROWS}, 10))",
    },
    "spherical_z": {"logits": f"torch.randn({ROWS}, {CLASSES}, requires_grad=True)"},
}

#: Settings without a default: what the user knows of his data.
COUNTS = {"class_counts": [900, 90, 50, 30, 10]}
CENTRES = {"in_features": 4, "num_classes": CLASSES}
SETTINGS: dict[str, dict[str, Any]] = {
    "balanced_softmax": COUNTS,
    "class_balanced": COUNTS,
    "logit_adjustment": COUNTS,
    "corn": {"num_classes": CLASSES + 1},
    "adaptive_margin_softmax": CENTRES,
    "margin_calibration": CENTRES,
    "proto_triplet": CENTRES,
    "unpg": CENTRES,
    "local_entropy": {"num_classes": CLASSES, "num_labelled": 3},
    "soft_entropy": {"num_old": 3},
}


def passed(key: str, one: Facts) -> list[str]:
    """Named tensors that a step passes for a loss; statistics stand for logits and target."""
    names = set(one.tensors) | SPECIAL.get(key, {}).keys()
    if one.statistics:
        names |= {"logits"}
    if "log_prob" in one.statistics or "label" in one.target:
        names |= {"target"}
    order = list(NAMED_TENSORS)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def example(key: str, one: Facts) -> str:
    """A program that evaluates a loss on random tensors and takes its gradient."""
    names = passed(key, one)
    made = {name: made_up(name) for name in names} | TENSORS
    if one.target:
        made["target"] = TARGETS[one.target[0]]
    made |= SPECIAL.get(key, {})
    arguments = "\n".join(f"    {name}={made[name]}," for name in names)
    built = f'"{key}"'
    if key in SETTINGS:
        node = yaml.safe_load(yaml_text("loss", key)) | SETTINGS[key]
        lines = "\n".join(f'        "{k}": {v!r},' for k, v in node.items())
        built = f'{{\n    "{key}": {{\n{lines}\n    }}\n}}'.replace("'", '"')
    return (
        "import torch\n"
        "from lightning_losses import build_objective\n\n"
        f"objective = build_objective({built})\n"
        f"record = objective(\n{arguments}\n)\n"
        "record.total.backward()\n"
    )


def made_up(name: str) -> str:
    """A tensor for a name that `TENSORS` does not have yet, from what the vocabulary says of it."""
    word = NAMED_TENSORS.get(name, NamedTensor("rows", "(...) float", ""))
    if "bool" in word.shape:
        return f"torch.arange({ROWS}) % 2 == 0"
    if "int" in word.shape:
        return f"torch.arange({ROWS}) // 2"
    size = f"{ROWS}" if word.layout == "rows" else f"{ROWS}, {CLASSES}"
    return f"torch.randn({size}, requires_grad=True)"


def page(group: str, key: str, one: Facts, picture: str = "") -> str:
    """The page of a key, in Markdown, with a picture in SVG if there is one."""
    title, choose, _ = TITLES[group]
    made = one.made or ""
    own = made.startswith("lightning_losses.")
    opening, _, rest = docstring(made).partition("\n\n") if own else ("", "", "")
    parts = [f"# {key}", escape(summary(group, key), quote=False)]
    if opening:
        parts.append(lead(opening))
    parts.append(f"`{CHOSEN.get(key, choose.format(key))}`")
    if group == "loss":
        parts += ["## Example", f"```python\n{example(key, one)}```"]
        parts += ["In a `LightningModule` with `LossMixin`: `return self.compute_loss(...)`."]
        if picture:
            parts += ["## Between two classes", f"<figure>{picture}</figure>"]
        parts += ["## What it reads", *needs(one)]
        if sources := compared(key):
            parts += ["## Compared with", *sources]
        if claims := studied(key):
            parts += ["## Does it do what its paper says?", *claims]
    if group == "callbacks":
        parts += ["## What it does", described(rest)]
        if figures := watched_curves(key):
            about = "Small trainings known to be healthy or sick, by `benchmarks/curves.py`."
            parts += ["## Healthy and sick", about, *figures]
        if charts := reading(made):
            parts += ["## How to read it", charts]
        parts += ["## Example", f"```python\n{program(key, made)}```"]
    parts += ["## Defaults", f"```yaml\n{yaml_text(group, key).rstrip()}\n```"]
    if own and group != "callbacks":
        parts += [f"## {made.rpartition('.')[2]}", described(rest)]
    elif made:
        parts += [f"It makes a `{made}`."]
    for what, part in (
        ("Target transform", one.target_transform),
        ("Row weighting", one.row_weighting),
        ("Aggregation", one.aggregation),
    ):
        if part:
            name = part.rpartition(".")[2]
            opening, _, rest = docstring(part).partition("\n\n")
            parts += [f"## {what}: {name}", lead(opening), described(rest)]
    parts += [f"[All {title.lower()}](../index.md#{slug(title)})"]
    return "\n\n".join(parts) + "\n"


def needs(one: Facts) -> Iterator[str]:
    """Named tensors, scope and kernel of a loss."""
    lines = ["| name | shape | meaning |", "|---|---|---|"]
    for name in one.needs:
        if name in NAMED_TENSORS:
            word = NAMED_TENSORS[name]
            lines.append(f"| `{name}` | {cell(word.shape)} | {cell(word.meaning)} |")
    yield "\n".join(lines)
    kinds = [KINDS[kind] for kind in one.target if kind in KINDS]
    if kinds:
        yield f"The target may be {', or '.join(kinds)}."
    yield f"Scope `{one.scope}`: {SCOPES[one.scope or 'rows']}"
    if one.by_chunks:
        yield (
            "It needs whole rows of logits, which are made a few rows at a time: pass "
            "`teacher_hidden=` and `teacher_head_weight=` instead of `teacher_logits=`, and "
            "`hidden=` and `head_weight=` instead of `logits=`, and no tensor of N rows and C "
            "columns is held."
        )
    elif "logits" in one.tensors:
        yield "It needs whole rows of logits, which no kernel can spare it."
    elif one.statistics:
        yield (
            "Softmax statistics are all it asks of the classes: pass `hidden=` and `head_weight=` "
            "instead of `logits=`, and no tensor of N rows and C columns is made, by any "
            "[kernel](../../kernels.md)."
        )


@cache
def golden() -> dict[str, Counter[str]]:
    """Key -> where its expected values come from, and in how many cases."""
    out: dict[str, Counter[str]] = {}
    for file in sorted(GOLDEN.glob("*.json")):
        for case in json.loads(file.read_text())["cases"]:
            if isinstance(case, dict) and "source" in case:
                key = case["key"].removeprefix("loss.").partition(".")[0]
                whole = key == case["key"] or case["key"].startswith("loss.")
                out.setdefault(key if whole else case["key"], Counter())[case["source"]] += 1
    return out


def compared(key: str) -> list[str]:
    """What computed the values and gradients that tests expect of a loss."""
    found = golden().get(key)
    if not found:
        return []
    lines = [f"| {cell(source)} | {count} |" for source, count in sorted(found.items())]
    about = (
        "Who computed the values and gradients that the tests expect of this key; "
        f"`pytest tests/fidelity -k {key}` compares them, and says where and why one deviates."
    )
    return [about, "\n".join(["| computed by | cases |", "|---|---|", *lines])]


def studied(key: str) -> list[str]:
    """What the studies in ``examples/reproduce`` found of a loss, as they printed it."""
    lines = []
    for study in sorted(STUDIES.glob("*.md")):
        for row in study.read_text().splitlines():
            cells = [part.strip() for part in row.strip("|").split("|")]
            verdict = cells[-1].strip("*")
            if verdict in VERDICTS and re.search(rf"(^|: ){key}\b(?!,)", cells[0]):
                lines.append(f"| {study.stem} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = ["| study | claim | means | difference, 95 % | at this scale |", "|---|---|---|---|---|"]
    about = "Small networks on scikit-learn's digits, over seeds; see `examples/reproduce`."
    return ["\n".join(head + lines), about]


def described(text: str) -> str:
    """A docstring as Markdown: arguments as a list, examples as code, arXiv numbers as links."""
    text, _, examples = f"\n{text}".partition("\nExamples:\n")
    code = f"\n\n**Examples**\n\n```pycon\n{dedent(examples).strip()}\n```" if examples else ""
    out: list[str] = []
    in_list = False
    for line in text.splitlines():
        section = re.fullmatch(r"(Args|Raises|Returns|Shapes):", line)
        item = re.match(r"    (\S[^:]*): (.*)", line)
        if section:
            in_list = section[1] in ("Args", "Raises")
            out += ["", f"**{section[1]}**", ""]
        elif in_list and item:
            out.append(f"- `{item[1]}`: {item[2]}")
        elif in_list and line.startswith("     "):
            out[-1] += f" {line.strip()}"
        else:
            in_list = in_list and not line.strip()
            out.append(line)
    joined = "\n".join(out).replace("``", "`")
    linked = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", joined)
    return linked + code


def contents(known: dict[str, Facts]) -> str:
    """The list of all keys, by group and family."""
    parts = [
        "# Catalogue",
        "Every key, made from its YAML. `lightning-losses list` prints the same in a terminal.",
    ]
    for group in GROUPS:
        title, choose, what = TITLES[group]
        parts += [f"## {title}", f"{what} `{choose.format('KEY')}`"]
        names = keys(group)
        families = sorted({known[f"loss/{k}"].family for k in names}) if group == "loss" else [""]
        for family in families:
            if family:
                parts.append(f"### {family.replace('_', ' ').capitalize()}")
            parts.append(
                "\n".join(
                    ["| key | |", "|---|---|"]
                    + [
                        f"| [`{k}`]({group}/{k}.md) | {cell(summary(group, k))} |"
                        for k in names
                        if not family or known[f"loss/{k}"].family == family
                    ]
                )
            )
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return escape(text, quote=False).replace("|", "\\|")


def slug(title: str) -> str:
    """The anchor that a heading gets."""
    return title.lower().replace(" ", "-")


def on_files(files: Files, config: Any) -> Files:
    """Called by mkdocs when it has collected the files that are written by hand."""
    known = facts()
    pages = {"catalogue/index.md": contents(known)}
    pictures = curves([k for k in keys("loss") if drawable(k, known[f"loss/{k}"])])
    for name, one in known.items():
        group, key = name.split("/")
        picture = pictures.get(key, "") if group == "loss" else ""
        pages[f"catalogue/{group}/{key}.md"] = page(group, key, one, picture)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files
