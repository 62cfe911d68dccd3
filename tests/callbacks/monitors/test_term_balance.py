# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""TermBalanceMonitor against one backward pass a term in float64, and training does not notice."""

from __future__ import annotations

import random
from collections import OrderedDict
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# The workers of the two-rank test import this file by name.
from training import Logbook, require_config_is_the_class, train, train_twice

from lightning_losses import LossMixin, Objective, Term, build_objective
from lightning_losses.callbacks.controllers.perp_grad import PerpGrad
from lightning_losses.callbacks.monitors.gradient_rms import GradientRmsMonitor
from lightning_losses.callbacks.monitors.logit_health import LogitHealthMonitor
from lightning_losses.callbacks.monitors.term_balance import TermBalanceMonitor
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal, LogsumexpPenalty

N, WIDTH, CLASSES, BATCHES = 12, 8, 5, 4


class Classifier(LossMixin, L.LightningModule):
    """Batch norm, dropout, two terms; ``route`` says what is named."""

    route = "logits"
    kernel = "auto"

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(WIDTH, CLASSES)
        self.loss = self.objective()
        self.expected: list[dict[str, float]] = []

    def objective(self) -> Objective:
        terms = {"ce": Term(CrossEntropy(0.1)), "z": Term(LogsumexpPenalty(), 0.3)}
        return Objective(terms | {"h": Term(EntropyBonus(), 0.5)}, kernel=self.kernel)

    def named(self, hidden: Tensor, y: Tensor) -> dict[str, Any]:
        if self.route == "hidden":
            head = {"head_weight": self.head.weight, "head_bias": self.head.bias}
            return {"hidden": hidden, "target": y} | head
        named: dict[str, Any] = {"logits": self.head(hidden), "target": y}
        return named | ({"features": hidden} if self.route == "both" else {})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch[:2]
        return self.compute_loss(**self.named(self.body(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.03)

    def train_dataloader(self) -> Any:
        g = torch.Generator().manual_seed(1)
        x = torch.randn(N * BATCHES, 6, generator=g)
        y = torch.randint(CLASSES, (len(x),), generator=g)
        y[::5] = -100  # rows that do not count
        return DataLoader(TensorDataset(x, y, torch.arange(len(x))), batch_size=N)


class Hidden(Classifier):
    """The one-pass route, in which no term has a gradient of its own."""

    route = "hidden"


class Both(Classifier):
    """Features, and the logits made from them: a term reads each."""

    route = "both"

    def objective(self) -> Objective:
        return build_objective(["ce", "opl", "focal"])


def slow(module: Any, named: dict[str, Any], at: str) -> dict[str, float]:
    """A whole evaluation of the objective a term, differentiated at one tensor, then plain sums."""
    vectors: dict[str, list[float]] = {}
    for name, term in module.loss.named_terms():
        alone = Objective({name: Term(term.loss, float(term.weight))}, kernel="reference")
        total = alone(**named).total
        (g,) = torch.autograd.grad(total, named[at], retain_graph=True, allow_unused=True)
        vectors[name] = [0.0] if g is None else g.double().flatten().tolist()
    norms = {name: sum(v * v for v in g) ** 0.5 for name, g in vectors.items()}
    out = {f"norm/{name}": norm for name, norm in norms.items()}
    out |= {f"share/{name}": norm / sum(norms.values()) for name, norm in norms.items()}
    for a, b in combinations(vectors, 2):
        inner = sum(x * y for x, y in zip(vectors[a], vectors[b], strict=False))
        out[f"cosine/{a}:{b}"] = inner / (norms[a] * norms[b]) if norms[a] * norms[b] else 0.0
    return out


def truthful(base: Any, at: str) -> Any:
    """The module, working out at each step what the monitor should say."""

    class Truthful(base):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch[:2]
            named = self.named(self.body(x), y)
            total = self.compute_loss(**named)
            with torch.random.fork_rng():
                self.expected.append(slow(self, named, at))
            return total

    return Truthful


@pytest.mark.parametrize(
    ("base", "at"),
    [(Classifier, "logits"), (Hidden, "hidden"), (Both, "features")],
    ids=["logits", "hidden", "features and logits"],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_those_of_the_terms(base: Any, at: str, accumulate: int) -> None:
    monitor = TermBalanceMonitor(every_n_steps=2)
    run = train_twice(
        truthful(base, at),
        [monitor],
        own="term_balance/",
        accumulate_grad_batches=accumulate,
        max_epochs=2,
    )
    due = [b for b in range(2 * BATCHES) if b % (2 * accumulate) == 0]
    assert isinstance(run.module, Classifier)
    for batch in due:
        expected = run.module.expected[batch]
        found = {k.split("/", 1)[1]: v for k, v in run.logged[batch].items() if "_balance" in k}
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), batch
        assert len(found) == 9


class Stateful(Classifier):
    """A memory of samples, draws from a generator of its own and from the global ones."""

    def objective(self) -> Objective:
        aldr: Any = build_objective({"a": {"_target_": ALDR, "num_samples": 64}}).terms["a"]
        state = aldr.loss.lambdas  # torch numbers hooks on from module to module
        hooks = state._state_dict_pre_hooks.values()
        state._state_dict_pre_hooks = OrderedDict(enumerate(hooks))
        return Objective({"ce": CrossEntropy(), "aldr": aldr, "noisy": Noisy()})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, index = batch
        noise = torch.rand(1) + random.random()  # before and after, so that a shift would show
        total = self.compute_loss(
            logits=self.head(self.body(x)) + 0.01 * noise, target=y, sample_index=index
        )
        return total + 0.01 * torch.rand(1).sum() * total


ALDR = "lightning_losses.losses.AdaptiveLDRKL"


class Noisy(nn.Module):
    """Everything that a loss should not do between calls, and some do."""

    scope = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.calls, self.history = 0, []
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, logits: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(self.calls)
        self.mean.mul_(0.9).add_(logits.detach().mean())
        noise = torch.rand(len(logits)) + torch.rand(len(logits), generator=self.generator)
        return (noise + random.random() + self.mean + self.calls) * logits.square().mean(1)


class Binary(Classifier):
    def objective(self) -> Objective:
        return build_objective(["ensloss", "bce"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y, _ = batch
        return self.compute_loss(logits=self.head(self.body(x))[:, 0], target=(y % 2).float())


class Manual(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        loss = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()


class Lbfgs(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=3)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (Stateful, {}),
        (Binary, {}),
        (Manual, {}),
        (Lbfgs, {}),
        (Hidden, {"precision": "bf16-mixed"}),
        (Both, {"precision": "bf16-mixed"}),
        (Hidden, {"precision": "64-true"}),
    ],
    ids=["stateful", "ensloss", "manual", "lbfgs", "bf16 hidden", "bf16 both", "float64"],
)
def test_monitor_changes_no_bit_of_training(base: Any, options: Any) -> None:
    run = train_twice(base, [TermBalanceMonitor(1)], own="term_balance/", **options)
    norms = [v for k, v in run.logged[-1].items() if k.startswith("term_balance/norm")]
    assert len(norms) >= 2
    assert all(norm > 0 for norm in norms)
    assert not run.module.loss._shown  # type: ignore[union-attr]


def test_bf16_hidden_states_are_close_to_float32() -> None:
    """By the same weights and batch: only rounding of hidden states and head differs."""
    half = train(Hidden, [TermBalanceMonitor(1)], precision="bf16-mixed", max_steps=1).logged[0]
    full = train(Hidden, [TermBalanceMonitor(1)], max_steps=1).logged[0]
    keys = [k for k in full if "_balance" in k]
    assert {k: half[k] for k in keys} == pytest.approx({k: full[k] for k in keys}, abs=0.03)


def test_resuming_is_going_on(tmp_path: Path) -> None:
    whole = train(Both, [TermBalanceMonitor(3)], max_epochs=3)
    half = train(Both, [TermBalanceMonitor(3)], max_epochs=2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(7)
    # Dropout draws other numbers after a restart, which is training's business, so without it.
    keys = {k for k in whole.logged[-1] if "_balance" in k}
    rest = train(Both, [TermBalanceMonitor(3)], ckpt_path=tmp_path / "half.ckpt", max_epochs=3)
    # Steps 0, 3, 6 | 9: after the restart the first due step is the second of the epoch.
    assert not keys & rest.logged[0].keys()
    assert keys <= rest.logged[1].keys()


# ------------------------------------------------------------------ what cannot be compared
class OneTerm(Classifier):
    def objective(self) -> Objective:
        return build_objective("ce")


class Detached(Classifier):
    def named(self, hidden: Tensor, y: Tensor) -> dict[str, Any]:
        return {"logits": self.head.bias.expand(len(y), CLASSES).detach(), "target": y}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        total = super().training_step(batch, batch_idx)
        return total + self.head(self.body(batch[0])).square().mean()


class Fails(Classifier):
    """A loss that cannot be called twice in a step."""

    def objective(self) -> Objective:
        return Objective({"ce": CrossEntropy(), "once": Once()})


class Once(Focal):
    step = -1

    def set_step(self, step: int) -> None:
        self.step, self.used = step, False

    def forward(self, log_prob: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.used:
            raise RuntimeError("only once")
        self.used = True
        return super().forward(log_prob)


@pytest.mark.parametrize(
    ("base", "reason"),
    [(OneTerm, "has one term"), (Detached, "no named tensor has a graph"), (Fails, "only once")],
)
def test_it_says_once_why_it_cannot_measure(base: Any, reason: str) -> None:
    with pytest.warns(UserWarning, match=reason) as caught:
        run = train_twice(base, [TermBalanceMonitor(1)], own="term_balance/")
    assert len([w for w in caught if "TermBalanceMonitor" in str(w.message)]) == 1
    assert not [k for k in run.logged[-1] if "_balance" in k]


def test_compiled_steps_are_not_seen_and_not_disturbed() -> None:
    def compiled() -> Any:
        module = Classifier()
        module.loss.compile(backend="eager")
        return module

    torch._dynamo.reset()
    with pytest.warns(UserWarning, match=r"outside torch\.compile"):
        train(compiled, [TermBalanceMonitor(2)], max_steps=2)


class Apart(Classifier):
    """Two tensors that do not come from each other."""

    def objective(self) -> Objective:
        return build_objective(["ce", "opl"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch[:2]
        hidden = self.body(x)
        named = {"features": 2 * hidden} | self.more(hidden)
        return self.compute_loss(logits=self.head(hidden), target=y, **named)

    def more(self, hidden: Tensor) -> dict[str, Any]:
        return {}


class Joined(Apart):
    """The remedy: name what both come from; any name will do."""

    def more(self, hidden: Tensor) -> dict[str, Any]:
        return {"trunk": hidden}


def test_terms_that_meet_nowhere_have_no_cosine() -> None:
    with pytest.warns(UserWarning, match="ce reaches logits and opl reaches features"):
        logged = train(Apart, [TermBalanceMonitor(1)]).logged[-1]
    assert "term_balance/norm/opl" in logged
    assert "term_balance/cosine/ce:opl" not in logged
    joined = train(Joined, [TermBalanceMonitor(1)]).logged[-1]
    assert "term_balance/cosine/ce:opl" in joined


def test_a_term_of_weight_zero_and_nothing_valid() -> None:
    class Zero(Classifier):
        def objective(self) -> Objective:
            return Objective({"ce": CrossEntropy(), "h": Term(EntropyBonus(), 0.0)})

    logged = train(Zero, [TermBalanceMonitor(1)]).logged[-1]
    assert logged["term_balance/share/ce"] == 1
    assert logged["term_balance/norm/h"] == logged["term_balance/cosine/ce:h"] == 0

    class Empty(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step([batch[0], torch.full_like(batch[1], -100)], batch_idx)

    logged = train(Empty, [TermBalanceMonitor(1)]).logged[-1]
    assert {v for k, v in logged.items() if "_balance" in k} == {0.0}


def test_separate_values_add_up_to_the_total() -> None:
    """The seam in the objective: shown batches, taken apart."""
    module = Hidden()
    shown: list[dict[str, Tensor]] = []
    module.loss.show("me", lambda _, b, n: shown.append(module.loss.separately(b, n)))
    x, y, _ = next(iter(module.train_dataloader()))
    named = module.named(module.body(x), y)
    record = module.loss(**named, normalizer=7.0)
    with torch.no_grad():
        module.loss(**named)  # not shown
    module.loss.show("me", None)
    module.loss(**named)
    (parts,) = shown
    assert list(parts) == ["ce", "z", "h"]
    torch.testing.assert_close(sum(parts.values()), record.total)
    grads = [torch.autograd.grad(t, named["hidden"], retain_graph=True)[0]
             for t in (record.total, sum(parts.values()))]  # fmt: skip
    torch.testing.assert_close(*grads)


# ------------------------------------------------------------------ two ranks
def observed(rank: int | None, **options: Any) -> list[dict[str, float]]:
    """What a run with all four logs; of one rank of two: its rows of each batch."""

    class Part(Both):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, WIDTH), nn.Tanh())  # no coupling of rows

        def train_dataloader(self) -> Any:
            whole = super().train_dataloader()
            if rank is None:
                return whole
            # 7 rows of 12 on one rank and 5 on the other, of which other numbers count.
            cut = slice(0, 7) if rank == 0 else slice(7, 12)
            batches: Any = [[t[cut] for t in batch] for batch in whole]
            return DataLoader(batches, batch_size=None)

    L.seed_everything(0)
    logbook = Logbook()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, enable_model_summary=False,
        callbacks=[
            TermBalanceMonitor(2), LogitHealthMonitor(1), GradientRmsMonitor(2),
            PerpGrad(exclude="body.0.bias"), logbook,
        ], **quiet | options,
    )  # fmt: skip
    trainer.fit(Part())
    return logbook.logged


def worker(rank: int) -> Any:
    return observed(rank, devices=2, strategy="ddp", use_distributed_sampler=False)


@pytest.mark.slow
def test_two_ranks_log_what_one_does(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert zero == one  # keys and values, to the last bit
    for found, expected in zip(zero, observed(None), strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for key in ("term_balance/cosine/opl:focal", "logit_health/zero_terms"):
        assert key in zero[-1]
    for key in ("gradient_rms/smallest", "perp_grad/removed_share"):
        assert zero[-1][key] > 0


# ------------------------------------------------------------------ arguments and config
def test_the_config_is_the_class() -> None:
    require_config_is_the_class("term_balance", TermBalanceMonitor)
    with pytest.raises(ValueError, match="every_n_steps"):
        TermBalanceMonitor(0)
