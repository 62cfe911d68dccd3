# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of terms that find themselves: by hand, resumed, accumulated, on two ranks, refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import portrait, require_equal, train

from lightning_losses import LossMixin, Term, build_objective
from lightning_losses.callbacks import (
    DWA,
    Aggregator,
    GradNorm,
    ReLoBRaLo,
    TermBalancer,
    Uncertainty,
)
from lightning_losses.config.catalogue import keys

pytestmark = pytest.mark.filterwarnings("ignore")

#: Often and strongly, so that every rule moves in a run of a few steps.
RULES: dict[str, Any] = {
    "uncertainty": lambda: Uncertainty(lr=0.3),
    "gradnorm": lambda: GradNorm(lr=0.1, window=2),
    "dwa": lambda: DWA(0.5),
    "dwa, steps": lambda: DWA(0.5, every_n_steps=2),
    "relobralo": lambda: ReLoBRaLo(0.8, 0.5, rho=0.5),
    "aggregator": lambda: Aggregator("UPGrad"),
}


class Two(LossMixin, L.LightningModule):
    """Two terms that pull apart, one of which has a weight that moves."""

    terms: Any = {"ce": {}, "entropy_bonus": {"weight": {"start": 0.5, "end": 0.3, "steps": 6}}}
    size = 24

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        objective = build_objective(dict(self.terms))
        self.loss = objective
        self.seen: list[dict[str, float]] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        h = self.body(batch[0]).tanh()
        total = self.compute_loss(logits=self.head(h), target=batch[1], features=h)
        record = self.loss_record
        assert record is not None
        self.seen.append({n: float(w) for n, w in record.weights.items()})
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)

    def train_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(0)
        x, y = torch.randn(self.size, 5, generator=g), torch.randint(3, (self.size,), generator=g)
        return DataLoader(TensorDataset(x, y), 8)


class Positive(Two):
    """For rules of ratios, which take no negative term."""

    terms: Any = {"ce": {}, "logsumexp_penalty": {"weight": 0.1}}


def module_for(rule: str) -> Any:
    return Two if rule in ("uncertainty", "aggregator") else Positive


@pytest.mark.parametrize("rule", RULES)
def test_resumed_bit_for_bit_and_it_moves(rule: str, tmp_path: Path) -> None:
    kind = module_for(rule)
    whole = train(kind, [TermBalancer(RULES[rule]())], max_epochs=4)
    half = train(kind, [TermBalancer(RULES[rule]())], max_epochs=2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = train(
        kind, [TermBalancer(RULES[rule]())], ckpt_path=tmp_path / "half.ckpt", max_epochs=4
    )
    assert whole.module.seen[6:] == rest.module.seen
    one, other = whole.trainer.callbacks[0], rest.trainer.callbacks[0]  # type: ignore[attr-defined]
    require_equal("balancer", one.state_dict(), other.state_dict())
    rest.module.seen = whole.module.seen
    require_equal("module", portrait(whole.module), portrait(rest.module))
    assert all(term.scale == 1 for _, term in whole.module.loss.named_terms())
    moved = {tuple(step.values()) for step in whole.module.seen}
    assert len(moved) > 2
    # Every attribute of an earlier training is forgotten in a new one.
    again = train(kind, [one], max_epochs=4)
    assert again.module.seen == whole.module.seen


def test_uncertainty_is_the_learned_parameter() -> None:
    run = train(Two, [TermBalancer(Uncertainty(lr=0.3))], max_epochs=2)
    module, s = Two(), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([s], 0.3)
    model = torch.optim.Adam(module.parameters(), lr=0.05)
    step = 0
    for _ in range(2):
        for x, y in module.train_dataloader():
            module.loss.set_step(step)
            h = module.body(x).tanh()
            record = module.loss(module.head(h), y, features=h)
            prior = torch.stack([*record.weights.values()])
            raw = torch.stack([*record.terms.values()]).double()
            weights = (-s).exp() / 2
            expected = dict(zip(record.terms, (prior * weights).tolist(), strict=True))
            assert run.module.seen[step] == pytest.approx(expected, rel=1e-5)
            (weights * prior * raw + s / 2).sum().backward(inputs=[s])
            for name, term in module.loss.named_terms():
                term.scale = expected[name] / float(term.schedule(step))
            module.loss.set_step(step)
            h = module.body(x).tanh()
            model.zero_grad()
            module.loss(module.head(h), y, features=h).total.backward()
            model.step(), optimizer.step(), optimizer.zero_grad()
            for _, term in module.loss.named_terms():
                term.scale = 1.0
            step += 1


def test_aggregator_weighs_the_very_batch() -> None:
    """No term rises to first order at the features, in the step whose gradients are opposed."""
    lines: list[tuple[Tensor, Tensor]] = []

    class Watched(Two):
        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            h = self.body(batch[0]).tanh()
            named = {"logits": self.head(h), "target": batch[1], "features": h}
            total = self.compute_loss(**named)
            rows = []
            for name, term in self.loss.named_terms():
                alone = build_objective({name: Term(term.loss)})
                loss = float(term.schedule(self.global_step)) * alone(**named).total
                rows.append(torch.autograd.grad(loss, h, retain_graph=True)[0].flatten())
            used = torch.autograd.grad(total, h, retain_graph=True)[0].flatten()
            lines.append((torch.stack(rows).detach(), used))
            return total

    train(Watched, [TermBalancer(Aggregator("UPGrad"))], max_epochs=2)
    opposed = 0
    for rows, used in lines:
        inner = rows @ used
        assert (inner >= -1e-5 * rows.norm(dim=1) * used.norm()).all()
        weights = Aggregator("UPGrad").scales(rows @ rows.T)
        torch.testing.assert_close(torch.tensor(weights).float() @ rows, used, rtol=1e-3, atol=1e-6)
        opposed += bool(rows[0] @ rows[1] < 0)
    assert opposed


def test_gradnorm_brings_gradients_to_one_length() -> None:
    lengths: list[list[float]] = []

    class Lopsided(Positive):
        terms: Any = {"ce": {}, "logsumexp_penalty": {"weight": 30.0}}

        def on_train_batch_end(self, *_: Any) -> None:
            lengths.append(list(self.trainer.callbacks[0]._lengths))  # type: ignore[attr-defined]

    balancer = TermBalancer(GradNorm(alpha=0.0, lr=0.02, window=1))
    update = balancer.rule.update
    balancer._lengths = [0.0, 0.0]  # type: ignore[attr-defined]

    def spy(losses: Any, norms: Any = None) -> Any:
        weights = balancer.rule.weights  # type: ignore[union-attr]
        balancer._lengths = [w * n for w, n in zip(weights, norms, strict=True)]  # type: ignore[attr-defined]
        return update(losses, norms)

    balancer.rule.update = spy  # type: ignore[method-assign,union-attr]
    train(Lopsided, [balancer], max_epochs=12)
    first, last = (max(pair) / min(pair) for pair in (lengths[0], lengths[-1]))
    assert first > 5
    assert last < 2


def test_accumulation_is_the_larger_batch() -> None:
    class Halves(Two):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(super().train_dataloader().dataset, 4)

    whole = train(Two, [TermBalancer(Uncertainty(lr=0.3))], max_epochs=2)
    parts = train(
        Halves, [TermBalancer(Uncertainty(lr=0.3))], max_epochs=2, accumulate_grad_batches=2
    )
    for one, other in zip(whole.module.seen, parts.module.seen[::2], strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_refusals() -> None:
    class One(Two):
        terms: Any = {"ce": {}}

    class Compiled(Positive):
        def __init__(self) -> None:
            super().__init__()
            self.loss.compile(backend="eager")

    with pytest.raises(ValueError, match="there is one, ce"):
        train(One, [TermBalancer(DWA())])
    with pytest.raises(ValueError, match="'entropy_bonus' is -"):
        train(Two, [TermBalancer(ReLoBRaLo())])
    with pytest.raises(ValueError, match="accumulate_grad_batches=1"):
        train(Two, [TermBalancer(Aggregator())], accumulate_grad_batches=2)
    with pytest.raises(ValueError, match=r"within torch\.compile"):
        train(Compiled, [TermBalancer(GradNorm())])
    moved = train(Compiled, [TermBalancer(Uncertainty())])  # which only writes weights
    assert len({step["ce"] for step in moved.module.seen}) > 1
    with pytest.raises(ValueError, match="gives no weights"):
        Aggregator("ConFIG")
    for wrong in (
        lambda: GradNorm(lr=0),
        lambda: DWA(0),
        lambda: ReLoBRaLo(2.0),
        lambda: Uncertainty(form="kendall"),
        lambda: Uncertainty(kinds=["regression"]),
    ):
        with pytest.raises(ValueError, match=r"write|needs|must"):
            wrong()


def test_a_term_that_is_absent_is_left_out() -> None:
    for rule in (Uncertainty(), ReLoBRaLo(), DWA(), GradNorm(window=1)):
        rule.start(3)
        for losses in ([1.0, 2.0, math.nan], [0.5, 1.5, math.nan], [0.4, 1.4, 3.0]):
            rule.update(losses, [1.0, 2.0, math.nan if math.isnan(losses[2]) else 1.0])
            assert all(math.isfinite(w) for w in rule.weights)
    scales = Aggregator().scales(torch.diag(torch.tensor([1.0, 0.0, 2.0])))
    assert scales == pytest.approx([1.0, 1.0, 1.0])
    before = torch.get_rng_state()
    gram = torch.randn(3, 4) @ torch.randn(4, 3)
    state = torch.get_rng_state()
    assert Aggregator("PCGrad").weights(gram @ gram.T, 3) == Aggregator("PCGrad").weights(
        gram @ gram.T, 3
    )
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


@pytest.mark.parametrize("key", keys("balance"))
def test_config_has_the_defaults(key: str) -> None:
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        node = compose(overrides=[f"+balance={key}"]).callbacks.balance
    made = instantiate(node)
    assert isinstance(made, TermBalancer)
    plain = type(made.rule)()
    kept = ("name", "weighting")
    assert {k: v for k, v in vars(made.rule).items() if k not in kept} == {
        k: v for k, v in vars(plain).items() if k not in kept
    }


# ------------------------------------------------------------------ two ranks


def worker(rank: int) -> dict[str, list[dict[str, float]]]:
    found = {}
    for name in ("uncertainty", "gradnorm", "aggregator"):
        run = train(
            module_for(name),
            [TermBalancer(RULES[name]())],
            max_epochs=2,
            devices=2,
            strategy="ddp",
        )
        found[name] = run.module.seen
    return found


def test_two_ranks_have_the_same_weights(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert zero == one
    assert all(len({step["ce"] for step in steps}) > 1 for steps in zero.values())
