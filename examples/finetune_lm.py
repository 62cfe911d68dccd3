# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A causal language model of transformers, from its hidden states and its head.

Documents are sums, "12+7=19", of uneven length, as bytes; the model is to learn them. `--packed`
puts them end to end with positions that begin anew, instead of padding them; no token is predicted
from another document, and with as many tokens the loss is the same. Logits are never held.

python examples/finetune_lm.py
python examples/finetune_lm.py --packed

Needs `pip install transformers`. For weights of your own write
`AutoModelForCausalLM.from_pretrained(...)` instead of a configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning as L
import torch
from small_run import arguments, train
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import AttentionEntropyMonitor, EntropyMonitor, LogitHealthMonitor

Batch = dict[str, Tensor]
PAD, END, NOTHING = 0, 10, -100
DOCUMENTS = 64


class Finetune(LossMixin, L.LightningModule):
    """Cross-entropy of the next byte, with a little z-loss that keeps log Z near 0."""

    def __init__(self, lr: float = 3e-3) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=128,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=4096,
        )
        self.net, self.lr = LlamaForCausalLM(config), lr
        self.loss = build_objective(["ce", "logsumexp_penalty"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        hidden = self.net.model(  # the body alone: its head would form (B, T, C) logits
            input_ids=batch["tokens"],
            attention_mask=batch.get("mask"),
            position_ids=batch["position"],  # where they begin anew, a packed document does
            use_cache=False,
        ).last_hidden_state
        # shift=1: the states of one token predict the next.
        return self.compute_loss(
            hidden=hidden, head=self.net.lm_head, target=batch["target"], shift=1
        )

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


class Sums(IterableDataset[Batch]):
    """Batches of sums, drawn from a seed: padded, or packed into one row."""

    def __init__(self, seed: int, batches: int, packed: bool) -> None:
        self.seed, self.batches, self.packed = seed, batches, packed

    def __iter__(self) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(self.seed)
        for _ in range(self.batches):
            pairs = torch.randint(100, (DOCUMENTS, 2), generator=g).tolist()
            documents = [f"{a}+{b}={a + b}\n".encode() for a, b in pairs]
            yield pack(documents) if self.packed else pad(documents)


def pad(documents: Sequence[bytes]) -> Batch:
    """One document a row, zeros to its right, which do not count."""
    rows = [torch.tensor(list(one)) for one in documents]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, True, PAD)
    mask = tokens != PAD
    position = torch.arange(tokens.shape[1]).expand_as(tokens)
    target = tokens.where(mask, NOTHING)
    return {"tokens": tokens, "mask": mask, "position": position, "target": target}


def pack(documents: Sequence[bytes]) -> Batch:
    """All documents in one row; the first byte of each is nobody's to predict."""
    tokens = torch.tensor([byte for one in documents for byte in one])
    position = torch.cat([torch.arange(len(one)) for one in documents])
    target = tokens.where(position > 0, NOTHING)
    return {"tokens": tokens[None], "position": position[None], "target": target[None]}


@torch.no_grad()
def share_right(model: Finetune, seed: int, count: int = 200) -> float:
    """Share of sums that the model finishes rightly, taking its most likely byte each time."""
    g = torch.Generator().manual_seed(seed)
    right = 0
    for a, b in torch.randint(100, (count, 2), generator=g).tolist():
        text = f"{a}+{b}="
        for _ in range(4):
            logits = model.net(input_ids=torch.tensor([list(text.encode())])).logits
            text += chr(int(logits[0, -1].argmax()))
            if text.endswith("\n"):
                break
        right += text == f"{a}+{b}={a + b}\n"
    return right / count


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    parser = arguments("finetune_lm", 800, __doc__)
    parser.add_argument("--packed", action="store_true")
    args = parser.parse_args(words)
    L.seed_everything(args.seed, verbose=False)
    model = Finetune()
    loaders = [
        DataLoader(Sums(seed, batches, args.packed), batch_size=None)
        for seed, batches in ((args.seed, args.steps), (args.seed + 1, 4))
    ]
    monitors = [EntropyMonitor(), LogitHealthMonitor(), AttentionEntropyMonitor()]
    logged = train(model, *loaders, monitors, args.steps, args.out)
    logged["right"] = share_right(model.eval(), args.seed + 2)
    print(f"validation: {logged['val/loss/ce']:.3f} nats a byte, {logged['right']:.0%} sums right")
    return logged


if __name__ == "__main__":
    main()
