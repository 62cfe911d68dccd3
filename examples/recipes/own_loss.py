# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A loss of your own: `forward` names what it reads, and the rest is done for it.

This one asks for softmax statistics, so it runs from hidden states without logits, on every kernel,
with masks, ignored rows, sample weights and several ranks, none of which it knows of.

python examples/recipes/own_loss.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses import Objective, Term
from lightning_losses.losses import CrossEntropy


class Surprise(nn.Module):
    """``max(0, -log p_y - H(p))``: a row costs what it surprises beyond what the model expects.

    Per-row values ``(N,)`` in nats. Beside its value it tells which rows cost anything: their share
    is in ``record.diagnostics``, and `LossMixin` logs it as train/diagnostics/mine/surprised.
    """

    scope = "rows"  # a value a row, which depends on no other row

    def forward(self, log_prob: Tensor, entropy: Tensor) -> Tensor:
        cost = (-log_prob - entropy).relu()
        self.diagnostics = {"surprised": cost > 0}
        return cost


def main() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 8, requires_grad=True), torch.randn(100, 8, requires_grad=True)
    target = torch.tensor([3, 99, -100, 0, 17, -100])  # -100: rows that do not count
    # In a config: '+loss.mine={_target_:my_package.Surprise,weight:0.5}'
    objective = Objective({"ce": CrossEntropy(), "mine": Term(Surprise(), 0.5)})
    record = objective(hidden=hidden, head_weight=head, target=target)
    record.total.backward()

    rows = (hidden @ head.T)[target >= 0].log_softmax(-1)
    log_prob = rows.gather(1, target[target >= 0, None]).squeeze(1)
    by_hand = (-log_prob + rows.exp().mul(rows).sum(-1)).relu().mean()
    torch.testing.assert_close(record.terms["mine"], by_hand.detach())
    share = (-log_prob + rows.exp().mul(rows).sum(-1) > 0).float().mean()
    torch.testing.assert_close(record.diagnostics["mine/surprised"], share)
    assert hidden.grad is not None
    assert not hidden.grad[target < 0].any()
    print({name: round(float(value), 4) for name, value in record.terms.items()})


if __name__ == "__main__":
    main()
