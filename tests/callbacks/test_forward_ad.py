# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""StepRadiusMonitor by forward AD: the derivative is the true one, and what lacks it is said."""

from __future__ import annotations

from typing import Any

import pytest
import radius_modules as m
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from training import Run, train, train_twice

from lightning_losses.callbacks.monitors.step_radius import StepRadiusMonitor


def values(run: Run, name: str = "r") -> list[float]:
    return [step[f"step_radius/{name}"] for step in run.logged]


class Slow(m.Module):
    """Float64 and plain gradient descent: updates as small as the test wants them."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Mlp(Slow):
    def make_net(self) -> nn.Module:
        return nn.Sequential(nn.Linear(m.FEATURES, 9), nn.Tanh(), nn.Linear(9, m.CLASSES))


class Cnn(Slow):
    """Batch norm moves buffers, dropout draws."""

    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, m.FEATURES)),
            nn.Conv1d(1, 4, 3),
            nn.BatchNorm1d(4),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(4 * (m.FEATURES - 2), m.CLASSES),
        )


class Hidden(m.Hidden):
    lr = 0.1
    configure_optimizers = Slow.configure_optimizers


class Tied(Mlp):
    def make_net(self) -> nn.Module:
        net = super().make_net()
        first = nn.Linear(m.FEATURES, m.FEATURES)
        return nn.Sequential(first, nn.Tanh(), first, *net)


class Gated(Slow):
    """Recurrent modules keep a second list of their parameters."""

    def make_net(self) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.out = nn.GRU(1, 8, batch_first=True), nn.Linear(8, m.CLASSES)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.rnn(x[:, :, None])[0][:, -1])

        return Net()


@pytest.mark.parametrize("module", [Mlp, Cnn, Hidden, Tied, Gated])
def test_small_updates_have_the_secant_of_their_derivative(module: Any) -> None:
    gaps = []
    # The gap is of first order in the update: a hundredth of the one leaves one of the other.
    for lr in (1.0, 1e-2):
        kind = type("Any", (module,), {"lr": lr})
        forward = StepRadiusMonitor(every_n_steps=1, method="forward_ad")
        options: dict[str, Any] = {"precision": "64-true", "max_steps": 1}
        a = values(train(kind, [forward], **options))[0]
        b = values(train(kind, [StepRadiusMonitor(every_n_steps=1)], **options))[0]
        assert forward.refused is None
        assert forward.disabled is None
        gaps.append(abs(a / b - 1))
    assert gaps[0] > 1e-4  # else the two methods were one
    assert gaps[1] < 1e-2
    assert gaps[1] < 0.05 * gaps[0]


def test_a_linear_model_is_its_derivative() -> None:
    class Linear(Slow):
        def make_net(self) -> nn.Module:
            return nn.Linear(m.FEATURES, m.CLASSES)

    runs = [
        train(Linear, [StepRadiusMonitor(every_n_steps=1, method=method)])
        for method in ("secant", "forward_ad")
    ]
    for name in ("r", "r_p99", "rho_a", "rho_dom", "rho_var", "descent", "rows"):
        assert values(runs[0], name) == pytest.approx(values(runs[1], name), rel=1e-4)


@pytest.mark.parametrize("module", [Cnn, Hidden, m.Busy, m.Couple, m.Lbfgs, m.Manual])
def test_training_does_not_notice(module: Any) -> None:
    monitor = StepRadiusMonitor(every_n_steps=1, method="forward_ad")
    run = train_twice(module, [monitor])
    assert monitor.refused is None
    assert monitor.disabled is None
    assert values(run)[-1] > 0


class Attention(m.Module):
    def make_net(self) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.into, self.out = nn.Linear(1, 8), nn.Linear(8, m.CLASSES)

            def forward(self, x: Tensor) -> Tensor:
                h = self.into(x[:, :, None])[:, None]
                return self.out(scaled_dot_product_attention(h, h, h)[:, 0].mean(1))

        return Net()


class Recurrent(m.Module):
    def make_net(self) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.out = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, m.CLASSES)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(self.rnn(x[:, :, None])[0][:, -1])

        return Net()


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Custom(m.Module):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=Double.apply(self.net(x)), target=y)


class Capped(m.Hidden):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        h = self.net[:2](batch[0])
        head = self.net[2].weight
        return self.compute_loss(hidden=h, head_weight=head, target=batch[1], softcap=5.0)


@pytest.mark.parametrize("module", [Attention, Recurrent, Custom, Capped])
def test_what_has_no_forward_ad_is_measured_by_the_secant(
    module: Any, recwarn: pytest.WarningsRecorder
) -> None:
    monitor = StepRadiusMonitor(every_n_steps=1, method="forward_ad")
    run = train_twice(module, [monitor])
    said = [str(w.message) for w in recwarn if "forward AD is not available" in str(w.message)]
    assert len(said) == 1
    assert monitor.refused is not None
    assert monitor.disabled is None
    assert values(run) == values(train(module, [StepRadiusMonitor(every_n_steps=1)]))


def test_method_is_checked() -> None:
    with pytest.raises(ValueError, match="method=secant"):
        StepRadiusMonitor(method="exact")  # type: ignore[arg-type]
