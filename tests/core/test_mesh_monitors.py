# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every monitor on a mesh of data x tensor ranks says what it says on one rank, or why it is off.

Found by globbing: a new monitor is in here by its YAML.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from lightning.pytorch.strategies import ModelParallelStrategy
from ranks import on_ranks
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.config.catalogue import keys

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: Controllers are in test_meshes; the dashboard only speaks to Weights & Biases.
OTHERS = ("elastic_memory", "entropy_target", "perp_grad", "step_radius_controller", "wandb")
MONITORS = [key for key in keys("callbacks") if key not in OTHERS]
#: Two data ranks share a batch, of which attention_entropy looks at four sequences; two tensor
#: ranks share heads and classes. Six steps an epoch.
V, S, WIDTH, BATCH, ROWS = 7, 5, 8, 4, 24
EPOCHS = 4  # 24 steps, of which scaling_forecast needs 20

#: What is not measured on such a mesh, and the sentence that says so; more where classes are split.
OFF = {
    "term_balance/": "TermBalanceMonitor: FSDP's hooks do not allow gradients of the terms apart.",
    "gradient_rms/": "GradientRmsMonitor: ModelParallelStrategy shards the moments",
}
OFF_SPLIT = {
    "post_hoc/": "PostHocCalibration: classes are split over ranks",
    "sample_value/aum": "SampleValueMonitor: hidden states and a head, or logits that are split",
}


#: Every step, and what has no default that fits.
CONFIGURED: dict[str, Any] = {
    "every_n_steps": 1, "reward": "train/loss", "layers": ["net.o"], "head": "net.head.weight",
}  # fmt: skip


def monitors() -> list[L.Callback]:
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        configs = compose(overrides=[f"+callbacks={MONITORS}".replace("'", "").replace(" ", "")])
    found = []
    for config in configs.callbacks.values():
        for option, value in CONFIGURED.items():
            if option in config:
                config[option] = value
        found.append(instantiate(config))
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, V)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.embed(x)
        q, k, v = (f(h).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)
        features = self.o(seen.transpose(1, 2).flatten(2)).mean(1).tanh()
        return features, self.head(features)


class Watched(LossMixin, L.LightningModule):
    """Logits are ``whole`` on tensor ranks, or ``split`` by classes."""

    def __init__(self, logits: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.logits, self.net = logits, Net().double()
        self.loss = build_objective(["ce", "logsumexp_penalty"])

    def configure_model(self) -> None:
        mesh = self.device_mesh
        if mesh is None or isinstance(self.net.o.weight, DTensor):
            return
        plan: dict[str, Any] = {**{n: ColwiseParallel() for n in "qkv"}, "o": RowwiseParallel()}
        if self.logits == "split":
            plan["head"] = ColwiseParallel(use_local_output=False)
        parallelize_module(self.net, mesh["tensor_parallel"], plan)
        fully_shard(self.net, mesh=mesh["data_parallel"])

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y, place = batch
        features, logits = self.net(x)
        named = {"features": features, "group_id": y % 2, "sample_index": place}
        return self.compute_loss(logits=logits, target=y, **named)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.training_step(batch, index)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.02)

    def loader(self, seed: int, interleaved: bool) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(seed)
        x = torch.randint(V, (ROWS, S), generator=g)
        data = x, x[:, 0], torch.arange(ROWS)
        rank, ranks = 0, 1
        if self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            rank, ranks = mesh.get_local_rank(), mesh.size()
        each = ROWS // ranks
        own = slice(rank, None, ranks) if interleaved else slice(rank * each, (rank + 1) * each)
        return DataLoader(TensorDataset(*(part[own] for part in data)), BATCH // ranks)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader(1, interleaved=True)  # the batches of one rank

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(2, interleaved=False)  # rows of all ranks in the order of one

    def ood_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(9)
        data = torch.randint(V, (12, S), generator=g), torch.zeros(12).long(), torch.arange(12)
        return DataLoader(TensorDataset(*data), batch_size=4)


def watch(logits: str, **options: Any) -> dict[str, Any]:
    """What was logged last by name, and what monitors said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            max_epochs=EPOCHS, callbacks=monitors(), logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            accelerator="cpu", use_distributed_sampler=False, **options,
        )  # fmt: skip
        trainer.fit(Watched(logits))
    metrics = {name: value.double().cpu() for name, value in trainer.callback_metrics.items()}
    return metrics | {"said": "\n".join(str(one.message) for one in said)}


def four(rank: int) -> dict[str, Any]:
    out = {}
    for logits in ("whole", "split"):
        strategy = ModelParallelStrategy(2, 2, process_group_backend="gloo")
        out[logits] = watch(logits, devices=4, strategy=strategy)
    return out


def test_every_monitor_says_the_same(tmp_path: Path) -> None:
    ranks = on_ranks(four, tmp_path, 4)
    one = watch("whole")
    del one["said"]
    logged = {name.split("/")[0] for name in one}
    other_names = {"post_hoc_calibration": "post_hoc", "scaling_forecast": "forecast"}
    # entropy_law logs beside entropy, and drift compares stages that a fit has not.
    silent = {other_names.get(key, key) for key in MONITORS} - logged
    assert silent == {"entropy_law", "drift"}
    assert "entropy/law_a" in one
    for logits, off in (("whole", OFF), ("split", OFF | OFF_SPLIT)):
        said = ranks[0][logits]["said"]
        for rank in (0, 3):  # with other rows, and other classes
            found = {name: value for name, value in ranks[rank][logits].items() if name != "said"}
            for name, value in one.items():
                why = next((why for start, why in off.items() if name.startswith(start)), None)
                if name in found:
                    assert why is None, name
                    torch.testing.assert_close(
                        found[name], value, rtol=1e-6, atol=1e-6, equal_nan=True,
                        msg=lambda m, name=name: f"{name}: {m}",
                    )  # fmt: skip
                else:
                    assert why is not None, name
                    assert why in said, said
            assert found.keys() <= one.keys()
