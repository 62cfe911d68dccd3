# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The attention entropy monitor: what it sees, what it leaves alone, and when it speaks."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from ranks import on_ranks
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Subset, TensorDataset
from training import require_config_is_the_class, train, train_twice

from lightning_losses import LossMixin, Objective, build_objective
from lightning_losses.callbacks import StepRadiusMonitor
from lightning_losses.callbacks.attention.calls import READERS
from lightning_losses.callbacks.attention.heads import same_layers
from lightning_losses.callbacks.attention.observer import AttentionObserver
from lightning_losses.callbacks.monitors.attention_entropy import AttentionEntropyMonitor
from lightning_losses.callbacks.reading.module_tree import compiled_parts
from lightning_losses.metrics.entropy.attention import attention_entropy

WIDTH, HEADS, LENGTH, BATCH, VOCAB = 8, 2, 6, 4, 11


class Block(nn.Module):
    """Causal attention with fewer key heads, through torch's function or written out."""

    def __init__(self, how: str, drop: float = 0.1) -> None:
        super().__init__()
        self.how = how
        self.q, self.k = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH // 2)
        self.v, self.drop = nn.Linear(WIDTH, WIDTH // 2), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        if self.how == "sdpa":
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            z = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
            z = z.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -math.inf)
            seen = torch.softmax(z, dim=-1) @ v
        return x + self.drop(seen.transpose(1, 2).flatten(2))


class Model(L.LightningModule):
    """Two layers of attention of one kind; no objective, for none is needed."""

    def __init__(
        self, how: str = "sdpa", lr: float = 0.05, teacher: bool = False, drop: float = 0.1
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.how, self.lr = how, lr
        self.token = nn.Embedding(VOCAB, WIDTH)
        if how == "encoder":
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, 0.1, batch_first=True)
            self.layers: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.layers = nn.ModuleList(
                Block("sdpa" if how == "recomputed" else how, drop) for _ in range(2)
            )
        self.head = nn.Linear(WIDTH, VOCAB)
        self.teacher = [Model("encoder").eval()] if teacher else []  # no submodule: hidden

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens)
        if self.how == "encoder":
            return self.head(self.layers(x, src_key_padding_mask=tokens == 0))
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.how == "recomputed" else layer(x)
        return self.head(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        (tokens,) = batch
        logits = self(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        for teacher in self.teacher:
            with torch.no_grad():
                wanted = teacher(tokens)
            loss = loss + (logits - wanted).square().mean()
        self.log("loss", loss)
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(0)
        tokens = torch.randint(1, VOCAB, (6 * BATCH, LENGTH), generator=g)
        tokens[::2, 4:] = 0  # padding, where the model masks it
        return DataLoader(TensorDataset(tokens), batch_size=BATCH)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def monitor(**options: Any) -> AttentionEntropyMonitor:
    return AttentionEntropyMonitor(**{"every_n_steps": 2} | options)


def observed(module: nn.Module, call: Any = None, rows: int = 999) -> AttentionObserver:
    """What an observer sees of one call."""
    observer = AttentionObserver(module, rows)
    observer.start()
    try:
        call() if call else module()
    finally:
        observer.stop()
    assert _get_current_function_mode() is None
    return observer


def entropy_of(p: Tensor, rows: Tensor | None = None) -> Tensor:
    """Mean entropy a head of probabilities (B, H, Q, K), over the queries that count (B, Q)."""
    entropy = torch.special.entr(p).sum(-1).transpose(1, 2)
    return entropy.flatten(0, 1).mean(0) if rows is None else entropy[rows].mean(0)


# -- what is seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sdpa", "written out", "recomputed", "encoder"])
def test_changes_nothing_and_sees_every_layer(how: str) -> None:
    callback = monitor()
    run = train_twice(lambda: Model(how), [callback], own="attention_entropy/")
    names = {"encoder": "layers.layers.{}.self_attn"}.get(how, "layers.{}")
    assert [(row["layer"], row["head"]) for row in callback.table] == [
        (names.format(i), h) for i in range(2) for h in range(HEADS)
    ]
    assert {row["step"] for row in callback.table} == {4}
    keys = {key for key in run.logged[-1] if key.startswith("attention_entropy/")}
    bounded = {"attention_entropy/lower_bound"} if how != "written out" else set()
    assert keys == bounded | {f"attention_entropy/{key}" for key in ("mean", "min", "max_logit")}
    last = run.logged[4]
    entropies = [row["entropy"] for row in callback.table]
    assert last["attention_entropy/mean"] == pytest.approx(sum(entropies) / 4)
    assert last["attention_entropy/min"] == pytest.approx(min(entropies))
    if bounded:
        assert 0 < last["attention_entropy/lower_bound"] < last["attention_entropy/mean"]
    assert _get_current_function_mode() is None


def test_a_hidden_teacher_keeps_its_fused_path() -> None:
    """Any function mode would make an encoder in eval mode leave it, and round otherwise."""
    train_twice(lambda: Model(teacher=True), [monitor()], own="attention_entropy/")


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precision_accumulation_and_the_same_number_by_hand(precision: str) -> None:
    callback, again = monitor(every_n_steps=1), monitor(name="second", max_rows=4)
    train_twice(
        Model,
        [callback, again],
        own=("attention_entropy/", "second/"),  # type: ignore[arg-type]
        precision=precision,
        accumulate_grad_batches=2,
    )
    assert callback.table[0]["step"] == again.table[0]["step"] == 2
    one = Model()
    batch = next(iter(one.train_dataloader()))
    first = observed(one, lambda: one.training_step(batch, 0)).seen["layers.0"]
    x = one.token(batch[0])
    q, k = (
        part(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
        for part in (one.layers[0].q, one.layers[0].k)
    )
    expected = attention_entropy(q, k, causal=True)
    torch.testing.assert_close(first, expected)
    small = observed(one, lambda: one.training_step(batch, 0), rows=8).seen["layers.0"]
    sample = attention_entropy(q, k, causal=True, queries=torch.tensor([2, 5]))
    torch.testing.assert_close(small, sample)


def test_beside_a_monitor_that_runs_the_step_again() -> None:
    class WithObjective(LossMixin, Model):
        def __init__(self) -> None:
            super().__init__()
            self.loss = build_objective("ce")

        def training_step(self, batch: Any, _: int) -> Tensor:
            (tokens,) = batch
            return self.compute_loss(logits=self(tokens), target=tokens.roll(-1, 1))

    callback, alone = monitor(), monitor()
    radius = StepRadiusMonitor(every_n_steps=2)
    run = train(WithObjective, [radius, callback])
    assert "step_radius/r" in run.logged[-1]
    train(WithObjective, [alone])
    assert callback.table == alone.table
    assert {row["layer"] for row in callback.table} == {"layers.0", "layers.1"}


# All that nn.MultiheadAttention can be asked for that changes who sees what.
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    ("made", "attn_mask", "padding"),
    [
        ({}, None, None),
        ({"batch_first": True}, "causal", None),
        ({"bias": False}, None, "bool"),
        ({}, "float", "float"),
        ({"add_bias_kv": True, "add_zero_attn": True}, "per head", "bool"),
        ({"kdim": 5, "vdim": 3}, "causal", "bool"),
    ],
)
def test_multi_head_attention(
    made: dict[str, Any], attn_mask: str | None, padding: str | None, weights: bool
) -> None:
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(WIDTH, HEADS, **made)
    b, length, keys = 3, 5, 7 if "kdim" in made else 5
    x = torch.randn(length, b, WIDTH)
    source = torch.randn(keys, b, made.get("kdim", WIDTH))
    value = torch.randn(keys, b, made.get("vdim", WIDTH)) if "vdim" in made else source
    if made.get("batch_first"):
        x, source, value = (t.transpose(0, 1) for t in (x, source, value))
    options: dict[str, Any] = {}
    causal, diagonal = torch.ones(length, keys).triu(1).bool(), torch.eye(length, keys).bool()
    options["attn_mask"] = {
        None: None,
        "causal": causal,
        "float": torch.zeros(length, keys).masked_fill(causal, -math.inf),
        "per head": (torch.rand(b * HEADS, length, keys) > 0.7) & ~diagonal,
    }[attn_mask]
    padded = torch.arange(keys) >= torch.tensor([keys, 3, 2])[:, None]
    options["key_padding_mask"] = {
        None: None,
        "bool": padded,
        "float": torch.zeros(b, keys).masked_fill(padded, -math.inf),
    }[padding]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observer = observed(
            nn.ModuleDict({"mine": mha}),
            lambda: mha(x, source, value, need_weights=weights, **options),
        )
        _, p = mha(x, source, value, need_weights=True, average_attn_weights=False, **options)
    assert not observer.failures
    found = observer.seen["mine"]
    # Padding tokens are no queries either, where queries and keys are the same tokens.
    rows = ~padded if padding and keys == length else torch.ones(b, length, dtype=torch.bool)
    torch.testing.assert_close(found.entropy, entropy_of(p, rows), rtol=1e-4, atol=1e-5)
    assert found.rows.tolist() == [rows.sum()] * HEADS
    assert (found.lower_bound <= found.entropy + 1e-5).all()


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8), (3, 2, 5, 8)])
@pytest.mark.parametrize("masked", [False, True])
def test_dot_product_attention_of_any_shape(shape: tuple[int, ...], masked: bool) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(shape), torch.randn(shape)
    mask = torch.rand(*shape[:-1], 5) > 0.4 if masked else None
    if mask is not None:
        mask[..., 0] = True
        mask[..., 1:, 2] = True  # every key is seen by somebody, so that none is padding
        mask |= torch.eye(5).bool()
    module = nn.Identity()

    def call() -> None:
        F.scaled_dot_product_attention(q, k, k, attn_mask=mask, scale=0.7)

    found = observed(module, call).seen["attention"]
    eye = torch.eye(5).expand(*shape[:-2], 5, 5)
    p = F.scaled_dot_product_attention(q, k, eye, attn_mask=mask, scale=0.7)
    p = p.reshape(-1, *((1,) if len(shape) < 4 else ()), *p.shape[-3 if len(shape) == 4 else -2 :])
    torch.testing.assert_close(found.entropy, entropy_of(p), rtol=1e-4, atol=1e-5)


def test_names_of_repeated_calls_and_what_is_no_attention() -> None:
    block = Block("sdpa")
    model = nn.Sequential(block, block, nn.Softmax(-1))  # a softmax of three dimensions
    observer = observed(model, lambda: model(torch.randn(2, LENGTH, WIDTH)))
    assert list(observer.seen) == ["0", "0#2"]
    q = torch.randn(2, 2, 5, 4)
    nested = torch.nested.nested_tensor([torch.randn(2, 3, 4), torch.randn(2, 5, 4)])

    def call() -> None:
        torch.softmax(q, 1)  # over heads
        torch.func.vmap(lambda x: F.scaled_dot_product_attention(x, x, x))(q)
        F.scaled_dot_product_attention(nested, nested, nested)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        observer = observed(model, call)
    assert not observer.seen
    assert "cannot be sampled" in observer.failures["attention"]


def test_compiled_functions_pass_through() -> None:
    """No break in the graph, and none of its own operations in it."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x).sin()

    x = torch.randn(2, 2, 5, 4)
    compiled = torch.compile(attend, backend=backend, fullgraph=True)
    observed(nn.Identity(), lambda: compiled(x))
    compiled(x)
    code = [[str(node.target) for node in graph.graph.nodes] for graph in graphs]
    assert all(one == code[0] for one in code)
    torch._dynamo.reset()


# -- when nothing can be seen ----------------------------------------------------------------------


def test_says_once_what_it_cannot_see() -> None:
    class Plain(Model):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.token(tokens))

    with pytest.warns(UserWarning, match="nothing to measure") as said:
        run = train(Plain, [monitor()])
    assert sum("nothing to measure" in str(w.message) for w in said) == 1
    assert not any(key.startswith("attention") for key in run.logged[-1])

    class Compiled(Model):
        def configure_model(self) -> None:
            self.layers[0].compile(backend="eager")

    with pytest.warns(UserWarning, match=r"layers\.0 is compiled"):
        train_twice(Compiled, [monitor()], own="attention_entropy/")
    torch._dynamo.reset()


@pytest.mark.parametrize("where", ["forward", "skip"])
def test_a_step_that_is_cut_off_is_not_observed_further(where: str) -> None:
    class Broken(Model):
        def training_step(self, batch: Any, index: int) -> Tensor:
            if where == "forward":
                raise RuntimeError("broken")
            return super().training_step(batch, index)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
            return -1 if where == "skip" else None

    if where == "forward":
        with pytest.raises(RuntimeError, match="broken"):
            train(Broken, [monitor()])
    else:
        train(Broken, [monitor()])
    assert _get_current_function_mode() is None
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks


# -- alerts, table, resuming -----------------------------------------------------------------------


class Sharpens(Model):
    """Attention that turns one-hot at step 12."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == 12:
            with torch.no_grad():
                self.layers[1].q.weight.mul_(300)


def test_alerts_when_a_layer_drops() -> None:
    options = {"every_n_steps": 1, "window": 5, "patience": 2, "drop_ratio": 0.7}
    with pytest.warns(UserWarning, match=r"layers\.1 fell to 0\.\d+ of its mean") as said:
        train(lambda: Sharpens(lr=1e-4), [monitor(**options)], max_epochs=4)
    assert sum("fell to" in str(w.message) for w in said) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="AttentionEntropyMonitor")
        quiet = monitor(**options)
        train(lambda: Model(lr=1e-4), [quiet], max_epochs=4)
    assert not quiet.alarm.on
    with pytest.warns(UserWarning, match="fell to"):
        run = train(lambda: Sharpens(lr=1e-4), [monitor(action="stop", **options)], max_epochs=4)
    assert run.trainer.global_step == 14


@pytest.mark.filterwarnings("ignore:AttentionEntropyMonitor. ")
def test_another_training_begins_anew() -> None:
    used, fresh = monitor(), monitor()  # past and present fit into its window of 20
    train(lambda: Sharpens(lr=1e-4), [used], max_epochs=4)
    past = used.state_dict()
    train(lambda: Model(lr=1e-4), [used])
    train(lambda: Model(lr=1e-4), [fresh])
    assert used.state_dict() == fresh.state_dict() != past


def test_onset_is_logged_only_where_the_largest_logit_grows() -> None:
    class Grows(Model):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            with torch.no_grad():
                self.layers[0].q.weight.mul_(1.2)
                self.layers[0].q.bias.mul_(1.2)

    options = {"every_n_steps": 1, "window": 24, "patience": 99, "threshold": 150.0}
    run = train(lambda: Grows(lr=0.0), [monitor(**options)], max_epochs=4)
    # Six batches come again, and so does what each adds to the growth: by 1.2^6 an epoch.
    sizes = [step["attention_entropy/max_logit"] for step in run.logged]
    passed = next(k for k in range(24) if sizes[k] * 1.2**6 > 150) + 6
    assert run.logged[-1]["attention_entropy/onset_step"] == pytest.approx(passed, abs=3)
    assert "attention_entropy/onset_step" not in run.logged[5]


def test_a_compiled_loss_is_no_compiled_attention() -> None:
    class WithLoss(Model):
        def __init__(self) -> None:
            super().__init__()
            self.loss = build_objective("ce")
            self.loss.compile(backend="eager")
            self.again = torch.compile(build_objective("ce"), backend="eager")

    assert compiled_parts(WithLoss()) == ["loss", "again"]
    assert compiled_parts(WithLoss(), but=Objective) == []
    run = train(WithLoss, [monitor(every_n_steps=1)])
    assert "attention_entropy/mean" in run.logged[-1]


def test_table_and_resume(tmp_path: Path) -> None:
    def run(folder: str, epochs: int, ckpt: Path | None = None) -> AttentionEntropyMonitor:
        callback = monitor(every_n_steps=4, window=3, name="heads")
        train(
            lambda: Model(drop=0.0),  # no checkpoint holds the random state
            [callback, ModelCheckpoint(tmp_path / folder, save_last=True)],
            ckpt,
            max_epochs=epochs,
            logger=CSVLogger(tmp_path / folder, version=0),
            enable_checkpointing=True,
        )
        return callback

    whole = run("whole", 4)
    run("half", 2)
    resumed = run("half", 4, tmp_path / "half" / "last.ckpt")
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.table == whole.table
    assert len(whole.state_dict()["max_logits"]) == 3
    tables = [list(tmp_path.glob(f"{f}/**/heads.csv")) for f in ("whole", "half")]
    (a,), (b,) = tables
    assert a.read_text() == b.read_text()
    rows = list(csv.DictReader(a.open()))
    assert [int(row["step"]) for row in rows[::4]] == [0, 4, 8, 12, 16, 20]
    assert float(rows[-1]["entropy"]) == pytest.approx(whole.table[-1]["entropy"], rel=1e-6)


# -- arguments and config --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"window": 0}, "window"),
        ({"patience": 0}, "patience"),
        ({"drop_ratio": 1.0}, "drop_ratio must be in"),
        ({"threshold": 0.0}, "threshold positive"),
        ({"action": "shout"}, "action is 'shout'"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        monitor(**options)


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("attention_entropy", AttentionEntropyMonitor)


# -- ranks -----------------------------------------------------------------------------------------


def worker(rank: int) -> Any:
    first = monitor(every_n_steps=1000, name="first")
    callback = monitor()

    class Part(Model):
        def train_dataloader(self) -> DataLoader[Any]:
            whole = super().train_dataloader().dataset
            return DataLoader(Subset(whole, range(rank, 6 * BATCH, 2)), batch_size=BATCH)

    found = train(Part, [callback, first], devices=2, strategy="ddp", use_distributed_sampler=False)
    logged = [{k: v for k, v in step.items() if k.startswith("attention")} for step in found.logged]
    # A layer on one rank only: both ranks must find out, and neither may wait for the other.
    one = attention_entropy(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4))
    seen = {"a": one} if rank else {"a": one, "b": one}
    differ = same_layers(found.trainer, seen, {}) is None
    return {"logged": logged, "table": callback.table, "first": first.table, "differ": differ}


@pytest.mark.slow
def test_two_ranks_log_what_both_saw(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert zero == one
    assert zero["differ"]
    assert len(zero["logged"]) == 3
    assert set(zero["logged"][-1]) == {
        f"attention_entropy/{key}" for key in ("mean", "min", "max_logit", "lower_bound")
    }
    # Sequences of the two ranks, at the weights that both begin with, without dropout.
    model = Model()
    tokens = torch.cat([batch for (batch,) in model.train_dataloader()])
    parts = [tokens[0::2][:BATCH], tokens[1::2][:BATCH]]
    seen = [observed(model, lambda part=part: model(part)).seen["layers.0"] for part in parts]
    for head, row in enumerate(zero["first"][:HEADS]):
        rows = sum(float(s.rows[head]) for s in seen)
        entropy = sum(float(s.entropy[head] * s.rows[head]) for s in seen) / rows
        assert row["entropy"] == pytest.approx(entropy, rel=1e-5)
        assert row["max_logit"] == pytest.approx(max(float(s.max_logit[head]) for s in seen))


def test_padded_queries_are_left_out_of_a_softmax_as_of_sdpa() -> None:
    g = torch.Generator().manual_seed(8)
    q, k = torch.randn(2, 3, 5, 4, generator=g), torch.randn(2, 3, 5, 4, generator=g)
    real = torch.ones(2, 5, dtype=torch.bool)
    real[1, 3:] = False
    mask = torch.ones(5, 5).tril().bool() & real[:, None, None]
    logits = (q @ k.transpose(2, 3) / 2).masked_fill(~mask, torch.finfo(torch.float32).min)
    fused = READERS[F.scaled_dot_product_attention]((q, k, k), {"attn_mask": mask}, 64)
    plain = READERS[torch.softmax]((logits, -1), {}, 64)
    assert fused is not None
    assert plain is not None
    assert plain.rows.tolist() == fused.rows.tolist() == [8.0] * 3
    torch.testing.assert_close(plain.entropy, fused.entropy)
