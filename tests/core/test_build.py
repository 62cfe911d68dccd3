# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From keys, Python mappings and Hydra's command line to an objective; and every refusal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from factory import LOSSES, build, inputs
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_losses import Objective, Term, build_objective, losses
from lightning_losses.__main__ import main
from lightning_losses.config.build import compose_losses
from lightning_losses.config.catalogue import find, keys, summary, target_class, yaml_text
from lightning_losses.losses import CrossEntropy, Focal, OrthogonalProjection
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.providers import PGD
from lightning_losses.schedules import Constant, Cosine, Linear, Piecewise
from lightning_losses.targets import HLGauss
from lightning_losses.weighting import KLDRO

CE = {"_target_": "lightning_losses.losses.CrossEntropy"}
CONF = Path(__file__).parents[2] / "conf"
EVERY_FILE = sorted(p.relative_to(CONF) for p in CONF.rglob("*.yaml"))

Compose = Callable[..., DictConfig]


@pytest.fixture
def compose(tmp_path: Path) -> Any:
    """Composes a user's primary config, in a folder that is not ours, with overrides."""
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - loss: [ce]\n  - kernel: auto\n  - callbacks: []\n  - _self_\n"
    )
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield lambda *overrides: hydra.compose("train", overrides=list(overrides))


def made(config: DictConfig) -> Objective:
    return build_objective(config.get("loss"), kernel=config.kernel)


# -- every file in conf ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", LOSSES)
def test_every_loss_composes_builds_and_evaluates(key: str) -> None:
    assert list(build_objective(key).terms) == [key]
    objective = build(key)
    assert objective(**inputs(objective)).total.isfinite()


@pytest.mark.parametrize("path", EVERY_FILE, ids=str)
def test_every_file_composes_and_instantiates(path: Path, compose: Compose, tmp_path: Path) -> None:
    group, key = path.parent.as_posix(), path.stem
    if group == "kernel":
        assert compose(f"kernel={key}").kernel == key
        return
    at = "made" if "@package" not in (CONF / path).read_text() else None
    config = compose(
        f"+{group}@{at}={key}" if at else f"{'' if group == 'callbacks' else '+'}{group}=[{key}]"
    )
    if at is None:
        there = {"balance": "callbacks.balance", "preset": "loss"}.get(group, f"{group}.{key}")
        assert OmegaConf.select(config, there) is not None or key == "default"
    if group == "logger":
        return  # would open files; the class is resolved below
    if at is not None:
        node = config.made
        table = tmp_path / "logits.pt"
        torch.save(torch.zeros(2, 3), table)
        given = {"model": {"_target_": "torch.nn.Identity"}, "logits": str(table)}
        for name in OmegaConf.missing_keys(node):  # else sizes of the user's, such as in_features
            last = name.rpartition(".")[2]
            node[last] = given.get(last, 4)
        instantiate(node)
    elif group == "callbacks":
        for node in config.callbacks.values():
            instantiate(node)


@pytest.mark.parametrize("path", EVERY_FILE, ids=str)
def test_every_file_resolves_and_says_what_it_is(path: Path) -> None:
    group, key = path.parent.as_posix(), path.stem
    text = yaml_text(group, key)
    assert summary(group, key)
    if "\n_target_: " in text or text.startswith("_target_: "):
        assert target_class(group, key) is not None
    if group == "loss":
        assert text.startswith(f"# @package loss.{key}\n")
        assert "\nweight: " in text, "a term's weight is shown where its arguments are"


def test_every_loss_class_has_a_file() -> None:
    found = {target_class("loss", key) for key in LOSSES}
    for name in losses.__all__:
        assert getattr(losses, name) in found, f"{name} has no conf/loss/*.yaml"
    assert len(set(losses.__all__)) == len(losses.__all__)  # ruff keeps them in order


def test_catalogue() -> None:
    assert keys("loss") == sorted(keys("loss"))
    assert find("ce") == ("loss", "ce")
    assert find("kl_dro") == ("loss", "kl_dro")  # losses first
    assert find("weighting/kl_dro") == ("weighting", "kl_dro")
    assert find("triton") == ("kernel", "triton")
    assert find("csv") == ("logger", "csv")
    for key, message in (
        ("nope", r"there is no 'nope'\. `lightning-losses list` shows"),
        ("focl", r"there is no 'focl'\. Did you mean focal\?$"),
        ("tritn", r"there is no 'tritn'\. Did you mean triton"),  # of another group than losses
        ("logger/cvs", r"there is no 'logger/cvs'\. Did you mean csv\?$"),
        ("losses/ce", "there is no group 'losses'; groups are loss, "),
    ):
        with pytest.raises(ValueError, match=message):
            find(key)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["names"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"logits +\(\.\.\., C\) float +class scores before the softmax$", lines[0])
    assert {line.split()[0] for line in lines[:-2]} == set(NAMED_TENSORS)
    for key, line in (("triton", "kernel: triton"), ("csv", "name: csv")):
        assert main(["show", key]) == 0
        assert line in capsys.readouterr().out
    assert main(["show", "focl"]) == 2
    assert "Did you mean focal?" in capsys.readouterr().err


# -- the grammar -----------------------------------------------------------------------------------


def test_choose_one(compose: Compose) -> None:
    assert list(made(compose()).terms) == ["ce"]
    assert list(made(compose("loss=focal")).terms) == ["focal"]


def test_compose_and_weigh(compose: Compose) -> None:
    objective = made(compose("loss=[ce,opl]", "loss.opl.weight=0.3"))
    assert list(objective.terms) == ["ce", "opl"]
    assert objective.terms["opl"].schedule == Constant(0.3)
    assert isinstance(objective.terms["opl"].loss, OrthogonalProjection)


def test_add_remove_and_copy(compose: Compose) -> None:
    assert list(made(compose("+loss=opl")).terms) == ["ce", "opl"]
    assert list(made(compose("+loss=opl", "~loss.ce")).terms) == ["opl"]
    copied = made(compose("+loss@loss.aux=focal", "loss.aux.gamma=1"))
    assert list(copied.terms) == ["ce", "aux"]
    assert copied.terms["aux"].loss.gamma == 1
    twice = made(compose("+loss@loss.second=ce", "loss.second.label_smoothing=0.1"))
    assert [t.loss.label_smoothing for t in twice.terms.values()] == [0, 0.1]


@pytest.mark.parametrize(
    ("overrides", "schedule"),
    [
        (["+schedule@loss.opl.weight=linear", "loss.opl.weight.end=0.3"], Linear(end=0.3)),
        (["loss.opl.weight={start:0,end:0.3,steps:1000}"], Linear(0, 0.3, 1000)),
        (["+schedule@loss.opl.weight=cosine", "loss.opl.weight.steps=9"], Cosine(steps=9)),
        (["+schedule@loss.opl.weight=constant"], Constant(1.0)),
        (["+schedule@loss.opl.weight=piecewise"], Piecewise([1000], [0.0, 1.0])),
        (["+schedule@loss.opl.weight=linear", "loss.opl.weight=0.5"], Constant(0.5)),
    ],
    ids=lambda o: o[0] if isinstance(o, list) else "",
)
def test_schedules(compose: Compose, overrides: list[str], schedule: Any) -> None:
    assert made(compose("+loss=opl", *overrides)).terms["opl"].schedule == schedule


@pytest.mark.parametrize("kernel", ["reference", "chunked", "auto"])
def test_kernels(compose: Compose, kernel: str) -> None:
    assert made(compose(f"kernel={kernel}")).kernel == kernel


@pytest.mark.parametrize("key", keys("callbacks"))
def test_callbacks(compose: Compose, key: str) -> None:
    config = compose(f"callbacks=[{key}]")
    assert len(config.callbacks) >= 1
    for node in config.callbacks.values():
        if "every_n_steps" in node:
            node.every_n_steps = 7
            assert instantiate(node).every_n_steps == 7


def test_all_callbacks_at_once_and_a_cadence(compose: Compose) -> None:
    names = [key for key in keys("callbacks") if key != "default"]
    config = compose(f"callbacks=[{','.join(names)}]", "callbacks.entropy.every_n_steps=7")
    assert list(config.callbacks) == names
    assert instantiate(config.callbacks.entropy).every_n_steps == 7
    state_keys = [instantiate(node).state_key for node in config.callbacks.values()]
    assert len(set(state_keys)) == len(names)


@pytest.mark.parametrize("key", keys("logger"))
def test_loggers_without_a_running_application(compose: Compose, key: str) -> None:
    assert compose(f"+logger=[{key}]").logger[key].save_dir == "."
    assert compose(f"+logger=[{key}]", "+run_dir=here").logger[key].save_dir == "here"


@pytest.mark.parametrize("run_dir", [None, "${hydra:runtime.output_dir}/mine"])
def test_every_job_of_a_sweep_keeps_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dir: str | None
) -> None:
    """One folder for all of them would hold the last job's alone: the logger empties it."""
    (tmp_path / "train.yaml").write_text("defaults:\n  - logger: [csv]\n  - _self_\nx: 0\n")

    @hydra.main(version_base="1.3", config_path=str(tmp_path), config_name="train")
    def app(config: DictConfig) -> None:
        logger = instantiate(config.logger.csv)
        logger.log_metrics({"x": config.x}, step=0)
        logger.save()

    quiet = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    own = [f"+run_dir='{run_dir}'"] if run_dir else []
    jobs = tmp_path / "jobs"
    arguments = ["app", "-m", "x=1,2", f"hydra.sweep.dir={jobs}", *quiet, *own]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.chdir(tmp_path)
    app()
    found = {
        path.relative_to(jobs).as_posix(): path.read_text().splitlines()[-1].split(",")
        for path in jobs.rglob("metrics.csv")
    }
    below = "mine/csv" if run_dir else "csv"
    assert {path: "1" in row for path, row in found.items()} == {
        f"0/{below}/metrics.csv": True,
        f"1/{below}/metrics.csv": False,
    }
    assert "2" in found[f"1/{below}/metrics.csv"]


def test_sweeps(compose: Compose) -> None:
    """``-m 'loss=[ce],[ce,opl]' loss.ce.weight=0.5,1``: what Hydra makes of each point."""
    parser = OverridesParser.create()
    points = [
        list(parser.parse_override(o).sweep_string_iterator())
        for o in ("loss=[ce],[ce,opl]", "loss.ce.weight=0.5,1")
    ]
    found = []
    for chosen in points[0]:
        for weight in points[1]:
            objective = made(compose(f"loss={chosen}", f"loss.ce.weight={weight}"))
            found.append((list(objective.terms), objective.terms["ce"].weight.item()))
    assert found == [(["ce"], 0.5), (["ce"], 1), (["ce", "opl"], 0.5), (["ce", "opl"], 1)]


def test_parts_of_terms(compose: Compose) -> None:
    config = compose(
        "loss=[focal,trades,hl_gauss]",
        "+weighting@loss.focal.row_weighting=kl_dro",
        "loss.focal.row_weighting.radius=2",
        "loss.trades.provider.logits_adv.steps=3",
        "loss.hl_gauss.target_transform.num_bins=11",
        "+loss.focal.optimizer.lr=0.1",
    )
    objective = made(config)
    assert isinstance(objective.terms["focal"].row_weighting, KLDRO)
    assert objective.terms["focal"].row_weighting.radius == 2
    assert isinstance(objective.providers["logits_adv"], PGD)
    assert objective.providers["logits_adv"].steps == 3
    assert isinstance(objective.terms["hl_gauss"].target_transform, HLGauss)
    assert objective.terms["hl_gauss"].target_transform.num_bins == 11
    assert objective.terms["focal"].optimizer == {"lr": 0.1}


def test_a_loss_of_the_users_own(compose: Compose) -> None:
    config = compose("+loss.mine={_target_:torch.nn.L1Loss,reduction:none,inputs:{input:score}}")
    objective = made(config)
    assert isinstance(objective.terms["mine"].loss, nn.L1Loss)
    assert "score" in objective.terms["mine"].required


# -- in Python -------------------------------------------------------------------------------------


def test_keys_lists_and_mappings() -> None:
    assert isinstance(build_objective("ce").terms["ce"].loss, CrossEntropy)
    assert list(build_objective(["opl", "ce"]).terms) == ["opl", "ce"]
    assert list(build_objective(("ce",)).terms) == ["ce"]
    mixed = build_objective(
        {
            "ce": {**CE, "label_smoothing": 0.1, "weight": 0.5},
            "module": Focal(),
            "term": Term(Focal(), 2.0),
            "ramp": {**CE, "weight": {"start": 0, "end": 1, "steps": 10}},
        },
        reduction="sum",
        ignore_index=0,
    )
    assert [t.weight.item() for t in mixed.terms.values()] == [0.5, 1, 2, 0]
    assert (mixed.reduction, mixed.ignore_index, mixed.kernel) == ("sum", 0, "auto")
    assert list(build_objective(OmegaConf.create({"a": CE})).terms) == ["a"]


def test_modules_keys_and_nodes_without_a_target() -> None:
    assert list(build_objective(["ce", Focal()]).terms) == ["ce", "focal"]
    assert list(build_objective(CrossEntropy()).terms) == ["cross_entropy"]
    completed = build_objective({"ce": {"weight": 0.5, "label_smoothing": 0.1}, "aux": "focal"})
    assert completed.terms["ce"].loss.label_smoothing == 0.1
    assert completed.terms["ce"].weight.item() == 0.5
    assert isinstance(completed.terms["aux"].loss, Focal)
    weighed = build_objective({"ce": {"row_weighting": "kl_dro"}, "trades": {"provider": "pgd"}})
    assert isinstance(weighed.terms["ce"].row_weighting, KLDRO)
    assert isinstance(weighed.providers["logits_adv"], PGD)
    with pytest.raises(ValueError, match="Two terms of one name"):
        build_objective(["focal", Focal()])


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("ce", {"label_smoothing": 0.1}, r"belongs to a term.*\{'ce': \{'label_smoothing'"),
        ("ce", {"kernl": "auto"}, "no option 'kernl'.*Did you mean kernel"),
        ({"a": {**CE, "label_smoothing": 2}}, {}, "Term 'a': label_smoothing must be in"),
        ({"a": {**CE, "smoothing": 2}}, {}, "Term 'a': .*smoothing"),
        ({"a": {"_target_": "no.such.Loss"}}, {}, "Term 'a': .*no.such.Loss"),
        ({"a": {**CE, "row_weighting": "kl_dr"}}, {}, "Term 'a': .*Did you mean kl_dro"),
        ({"a": {**CE, "target_transform": "label_smoothing"}}, {}, "num_classes must be given"),
        ({"a": {**CE, "row_weighting": {"radius": 1}}}, {}, "a weighting is a key or a node"),
        ({"a": {**CE, "weight": {"start": 1, "end": -1}}}, {}, "Term 'a': .*at least 0"),
    ],
)
def test_what_is_refused_names_the_term(loss: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build_objective(loss, **options)
    with pytest.raises(TypeError, match="A loss is a key"):
        build_objective(3)  # type: ignore[arg-type]


def test_providers_by_argument() -> None:
    adv = nn.Identity()
    objective = build_objective(["ce"], providers={"logits_adv": adv})
    assert objective.providers["logits_adv"] is adv


def test_arguments_reach_the_loss_as_plain_python() -> None:
    node = OmegaConf.create({"ce": {**CE, "class_weight": [1.0, 2.0]}})
    assert build_objective(node).terms["ce"].loss.class_weight.values == (1, 2)
    assert node.ce.class_weight == [1.0, 2.0]  # the config is left as it was


def test_within_a_hydra_application(compose: Compose) -> None:
    """A notebook's call inside somebody's @hydra.main: theirs is there afterwards."""
    before = GlobalHydra.instance().hydra
    assert list(build_objective("opl").terms) == ["opl"]
    assert GlobalHydra.instance().hydra is before
    assert list(made(compose("loss=focal")).terms) == ["focal"]


def test_outside_of_one_nothing_is_left_behind() -> None:
    GlobalHydra.instance().clear()
    compose_losses(["ce"])
    assert not GlobalHydra.instance().is_initialized()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ([], "at least one loss.*Write loss=ce"),
        ({}, "at least one loss"),
        (None, "at least one loss"),
        ("", "There is no loss ''"),
        ("cross_entropy", r"no loss 'cross_entropy'.*losses list.*_target_"),
        (["ce", "opll"], r"There is no loss 'opll'\. Did you mean opl"),
        (["ce", "opl", "ce"], r"Two terms of one name: \['ce'\].*loss@loss.aux"),
        ({"mine": {"weight": 0.3}}, "Term 'mine' has no _target_.*first.*loss=mine"),
        ({"opl": 0.3}, "Term 'opl' has no _target_: found 0.3"),
        ({"ce": {**CE, "weight": -1}}, "Term 'ce': .*at least 0, found -1"),
        ({"ce": {**CE, "weight": None}}, "Term 'ce': .*found None"),
        ({"ce": {**CE, "weight": "1"}}, "Term 'ce': .*found '1'"),
        ({"ce": {**CE, "weight": {"begin": 1}}}, r"Term 'ce': .*found \['begin'\].*Cosine"),
        ({"ce": {**CE, "weight": {"steps": 0}}}, "Term 'ce': .*steps must be positive"),
        ({"ce": {**CE, "inputs": {"z": "logits"}}}, "Term 'ce': inputs names .'z'."),
        ({"t": {"_target_": "torch.nn.CrossEntropyLoss"}}, "Term 't': .*reduction: none"),
    ],
)
def test_what_is_refused_says_what_to_write(loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build_objective(loss)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({**CE, "label_smoothing": 2}, "label_smoothing must be in"),
        ({**CE, "smoothing": 0.1}, "smoothing"),
        ({"_target_": "lightning_losses.losses.Nope"}, "Nope"),
        ({"_target_": "no.such.module.Loss"}, "no.such.module"),
    ],
)
def test_what_a_loss_or_hydra_refuses_comes_through(node: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):
        build_objective({"x": node})


def test_empty_on_the_command_line(compose: Compose) -> None:
    with pytest.raises(ValueError, match="Hydra drops the key"):
        made(compose("loss=[]"))


def test_weight_without_its_loss_on_the_command_line(compose: Compose) -> None:
    with pytest.raises(ValueError, match=r"Term 'opl' has no _target_.*\+loss=opl"):
        made(compose("+loss.opl.weight=0.3"))


def test_two_providers_of_one_tensor() -> None:
    node = {**CE, "provider": {"x": {"_target_": "torch.nn.Identity"}}}
    with pytest.raises(ValueError, match="Two terms bring a provider of 'x'; 'b'"):
        build_objective({"a": node, "b": node})


def test_built_objectives_do_not_share_tensors() -> None:
    a, b = build_objective("ce"), build_objective("ce")
    a.terms["ce"].weight.fill_(0.0)
    assert b.terms["ce"].weight.item() == 1
    assert torch.get_default_dtype() == torch.float32
