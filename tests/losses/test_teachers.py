# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where a teacher's logits come from: a frozen network, a moving average, a table."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.config.catalogue import keys
from lightning_losses.providers import EMATeacher, FrozenTeacher, StoredTeacher

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def load() -> nn.Module:
    """What a config may name."""
    return net(7)


def with_provider(provider: Any, key: str = "kd") -> Objective:
    return build_objective({key: {"provider": {"teacher_logits": provider}}})


def test_every_key_is_a_line_of_a_config(tmp_path: Path) -> None:
    """As Hydra composes it, with what must be given."""
    from hydra import compose, initialize_config_module

    torch.save(Z, tmp_path / "logits.pt")
    given = {
        "frozen_teacher": [f"model={{_target_:{__name__}.load}}"],
        "stored_teacher": [f"logits={tmp_path / 'logits.pt'}"],
        "ema_teacher": ["momentum=0.9"],
    }
    assert {*given} <= {*keys("provider")}
    step = {"input": X, "model": net(), "sample_index": torch.arange(6)}
    expected = {
        "frozen_teacher": net(7).eval()(X),
        "stored_teacher": Z,
        "ema_teacher": step["model"].eval()(X),
    }
    for key, overrides in given.items():
        place = "loss.kd.provider.teacher_logits"
        with initialize_config_module("lightning_losses.conf", version_base="1.3"):
            lines = ["+loss=[kd]", f"+provider@{place}={key}"]
            lines += [f"{place}.{line}" for line in overrides]
            config = compose(overrides=lines).loss
        found = build_objective(config)(logits=Z + 1e-3 * X[:, :3], **step).total
        named = build_objective("kd")(Z + 1e-3 * X[:, :3], teacher_logits=expected[key]).total
        torch.testing.assert_close(found, named)


def test_a_frozen_teacher_with_a_head_gives_no_logits() -> None:
    model = net(3)
    expected = model.eval()(X).detach()
    body, head = model[:3], model[3]
    provider = FrozenTeacher(body, head)
    assert provider.makes == "teacher_hidden"
    student, weight = torch.randn(6, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    named = {"hidden": student, "head_weight": weight, "input": X}
    plain = build_objective("kd")(student @ weight.T, teacher_logits=expected).total
    for tensor in ("teacher_hidden", "teacher_logits"):
        objective = build_objective({"kd": {"provider": {tensor: provider}}})
        assert not objective.state_dict()
        torch.testing.assert_close(objective(**named).total, plain)
    # A loss that must have whole rows says so, instead of a word about an argument.
    with pytest.raises(ValueError, match="teacher_hidden and teacher_head_weight never hold"):
        with_provider(provider, "rmt_sce")(logits=Z, input=X)


def test_a_teacher_takes_a_mapping_and_gives_a_tensor() -> None:
    class Named(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return ids * mask

    found = FrozenTeacher(Named())({"input": {"ids": X, "mask": torch.zeros(6, 1)}})
    assert torch.equal(found, torch.zeros(6, 4))

    class Output(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x}

    with pytest.raises(TypeError, match="must return a tensor, got dict"):
        FrozenTeacher(Output())({"input": X})


def test_a_mean_teacher_that_comes_with_the_first_step() -> None:
    """Even if that is a validation step; then it follows, is saved, and goes on after loading."""
    model = net()
    objective = with_provider({"_target_": "lightning_losses.providers.EMATeacher"})
    teacher = objective.providers["teacher_logits"]
    teacher.follow()  # nothing to follow yet
    with torch.inference_mode():
        objective(logits=Z, input=X, model=model)
    first = model[0].weight.detach().clone()
    for step in range(2):
        objective.set_step(step)
        objective(logits=Z, input=X, model=model)
        with torch.no_grad():
            model[0].weight.add_(1.0)
    torch.testing.assert_close(teacher.teacher[0].weight, 0.999 * first + 0.001 * (first + 1))
    saved = copy.deepcopy(objective.state_dict())
    resumed = with_provider({"_target_": "lightning_losses.providers.EMATeacher"})
    resumed.load_state_dict(saved)
    assert resumed.state_dict().keys() == saved.keys()  # saved again before a step
    resumed(logits=Z, input=X, model=model)
    torch.testing.assert_close(
        resumed.providers["teacher_logits"].teacher[0].weight, teacher.teacher[0].weight
    )
    pickle.loads(pickle.dumps(resumed))


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_a_mean_teacher_follows_the_step_that_a_checkpoint_came_after(lazy: bool) -> None:
    """The weights of the last step before it are taken by the first batch after it."""
    model = net()

    def run(objective: Objective, steps: range) -> Tensor:
        for step in steps:
            objective.set_step(step)
            objective(logits=Z, input=X, model=model)
            with torch.no_grad():
                model[0].weight.add_(0.1)
        return objective.providers["teacher_logits"].teacher[0].weight.clone()

    def make() -> Objective:
        return with_provider(EMATeacher(None if lazy else model, momentum=0.5))

    objective = make()
    run(objective, range(3))
    weights, saved = copy.deepcopy(model.state_dict()), copy.deepcopy(objective.state_dict())
    expected = run(objective, range(3, 6))
    model.load_state_dict(weights)
    resumed = make()
    resumed.load_state_dict(saved)
    torch.testing.assert_close(run(resumed, range(3, 6)), expected, rtol=0, atol=0)
    model.load_state_dict(weights)
    older = make()
    older.load_state_dict({k: v for k, v in saved.items() if not k.endswith(".step")})


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_a_mean_teacher_of_a_model_in_half_precision_is_none(lazy: bool) -> None:
    """A thousandth of the way, taken a thousand times, is not rounded away."""
    model = net()
    provider = EMATeacher(None if lazy else model)
    provider.to(torch.bfloat16)
    model.to(torch.bfloat16)
    provider({"input": X, "model": model})
    first = model[0].weight.detach().float().clone()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    for _ in range(1000):
        provider.follow()
    slow = provider.teacher[0].weight
    assert slow.dtype == torch.float32
    moved = (slow - first) / (model[0].weight.float() - first)
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.999**1000), atol=0.02, rtol=0)


def test_a_frozen_teacher_is_in_eval_mode_and_keeps_its_precision() -> None:
    """Whoever holds it too, and whatever the batch has been made."""
    teacher = net()
    provider, expected = FrozenTeacher(teacher), teacher.eval()(X)
    nn.ModuleList([provider, teacher]).train()
    assert torch.equal(provider({"input": X}), expected)
    torch.testing.assert_close(provider({"input": X.double()}), expected)
    assert provider({"input": X.half()}).dtype == torch.float32


def test_a_table_is_looked_up_and_not_saved(tmp_path: Path) -> None:
    objective = with_provider(StoredTeacher(Z))
    assert not objective.state_dict()
    index = torch.tensor([5, 0, 0])
    student = Z[:3].clone().requires_grad_()
    found = objective(student, sample_index=index).total
    expected = build_objective("kd")(student, teacher_logits=Z[index]).total
    torch.testing.assert_close(found, expected)
    half = StoredTeacher(Z.half())({"sample_index": index})
    assert half.dtype == torch.float16  # the objective makes float32 of it
    assert len(StoredTeacher(Z)({"sample_index": index[:0]})) == 0
    assert torch.equal(StoredTeacher(Z)({"sample_index": index.short()}), Z[index])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FrozenTeacher(load), "_target_: my.load_teacher"),
        (lambda: FrozenTeacher(net(), net()), "head must be a plain nn.Linear"),
        (lambda: EMATeacher(load), "_target_: my.load_teacher"),
        (lambda: EMATeacher(momentum=2.0), "momentum must be in"),
        (lambda: EMATeacher()({"input": X}), "input=x, model=self.net"),
        (lambda: EMATeacher()({"model": net()}), "input=x"),
        (lambda: StoredTeacher(Z[0]), r"\(samples, C\)"),
        (lambda: StoredTeacher(Z.long()), r"\(samples, C\)"),
        (lambda: StoredTeacher(Z)({}), "sample_index=index"),
        (lambda: StoredTeacher(Z)({"sample_index": torch.tensor([6])}), r"\[0, 6\)"),
        (lambda: StoredTeacher(Z)({"sample_index": torch.tensor([1.0])}), r"index\.long\(\)"),
        (lambda: StoredTeacher(Z)({"sample_index": torch.tensor([-1])}), r"\[0, 6\)"),
    ],
)
def test_refused(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_a_mean_teacher_is_not_its_own() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss = net(), with_provider(EMATeacher())

    module = Module()
    with pytest.raises(ValueError, match="the network alone"):
        module.loss(logits=Z, input=X, model=module)
