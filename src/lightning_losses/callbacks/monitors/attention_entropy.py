# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where does each attention head look? Its entropy, and an alert when heads suddenly collapse."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.attention.heads import Head, heads_of, same_layers
from lightning_losses.callbacks.attention.observer import AttentionObserver
from lightning_losses.callbacks.base.alerts import Action, Alarm, announce, check_action
from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.reading.module_tree import compiled_parts
from lightning_losses.metrics.training_curve.onset import onset_step
from lightning_losses.objective import Objective

COLUMNS = ("step", "layer", "head", "entropy", "entropy_fraction", "lower_bound", "max_logit")


class AttentionEntropyMonitor(Monitor):
    """Logs the entropy of attention in training steps, and alerts when a layer's suddenly falls.

    Attention entropy collapse goes with unstable training (Zhai et al., arXiv 2303.06296; the cure
    there is `sigma_reparam`), and so do attention logits that grow without end (about 1e4 is where
    trouble starts; the cure is a norm on queries and keys).

    At due steps the forward pass, up to the first backward, is watched for calls of
    ``F.scaled_dot_product_attention``, of `nn.MultiheadAttention`, and for softmaxes over the last
    dimension of a ``(B, H, Q, K)`` tensor. A sample of the rows of each call is computed again, in
    float32 and without graph, causal and padding aware; training stays the same to the last bit.
    It works on any LightningModule. Not seen, which is said once where nothing else is: what runs
    within ``torch.compile``, flex_attention, attention kernels of other packages, and torch's own
    attention modules in eval mode.

    Logged every ``every_n_steps``, over the sampled rows of all ranks, and over all heads where
    tensor parallelism splits them: ``attention_entropy/mean``
    and ``min`` (nats; mean over all heads, and the lowest head), ``lower_bound`` (nats; the mean
    over heads of what the spectral norm of a head's keys and the lengths of its queries leave
    possible at least), ``max_logit`` (largest \\|scale q.k\\|), and, where ``max_logit`` grows
    steadily, ``onset_step``: when it will reach ``threshold``; see `onset_step` for when no answer
    is given. Layers and heads one by one are in ``table`` and in
    ``<log_dir>/attention_entropy.csv`` (``entropy_fraction`` is that of log(keys the row may see)),
    which is written at validations, at ends of epochs and with checkpoints.

    The alert: in some layer the mean over heads is below ``drop_ratio`` times its mean over the
    last ``window`` measurements, or over as many as there are, ``patience`` times in a row. Heads
    that find out where to look lose a third of their entropy within a window and more than half of
    it in the end; those that collapse lose nearly all of it at once.

    Args:
        every_n_steps: optimizer steps between measurements.
        max_rows: (sequence, query) pairs that are looked at in a call, evenly spaced over at most
            four sequences.
        window: measurements that a drop is judged against and that an onset is extrapolated from.
        drop_ratio: in (0, 1).
        patience: measurements in a row that an alert needs.
        threshold: of ``max_logit``, for ``onset_step``.
        action: what an alert does: ``log``, ``warn``, ``alert`` (W&B) or ``stop``.
        name: first part of the logged names, and the file's name; give a second monitor another.

    Raises:
        ValueError: a count below 1, a ratio or threshold out of range, an unknown action.

    Examples:
        >>> monitor = AttentionEntropyMonitor(every_n_steps=20, max_rows=256, action="alert")
    """

    identity = ("every_n_steps", "name")

    def __init__(
        self,
        every_n_steps: int = 20,
        max_rows: int = 256,
        window: int = 20,
        drop_ratio: float = 0.5,
        patience: int = 3,
        threshold: float = 1e4,
        action: Action = "warn",
        name: str = "attention_entropy",
    ) -> None:
        super().__init__(every_n_steps)
        for option, value in (("max_rows", max_rows), ("window", window), ("patience", patience)):
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        if not 0 < drop_ratio < 1 or not threshold > 0:
            raise ValueError(
                f"drop_ratio must be in (0, 1) and threshold positive, got {drop_ratio} and "
                f"{threshold}; write 0.5 and 1e4."
            )
        check_action("action", action)
        self.max_rows, self.window, self.drop_ratio = max_rows, window, drop_ratio
        self.threshold, self.action, self.name = threshold, action, name
        self.alarm = Alarm(patience)
        self.table: list[dict[str, Any]] = []
        self._history: dict[str, list[float]] = {}  # layer -> its last means
        self._max_logits: list[tuple[int, float]] = []
        self._observer: AttentionObserver | None = None
        self._unwritten: list[dict[str, Any]] = []

    # -- when --------------------------------------------------------------------------------------

    def start_measuring(self, module: LightningModule) -> None:
        """Begin to observe; no records are read."""
        self.stop_measuring(module)
        parts = compiled_parts(module, but=Objective)  # a loss has no attention
        if parts:
            self.warn_once(
                f"{', '.join(parts[:3])} is compiled, and attention within compiled code "
                "cannot be seen, so nothing is measured. Run it once without torch.compile."
            )
            return
        self._observer = AttentionObserver(module, self.max_rows)
        self._observer.start()

    def stop_measuring(self, module: LightningModule) -> None:
        """End to observe."""
        if self._observer is not None:
            self._observer.stop()
            self._observer = None

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """The forward pass is over; a monitor that runs the step again later is not looked at."""
        if self._observer is not None:
            self._observer.stop()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure the step that was observed."""
        observer, self.due = self._observer, False
        self.stop_measuring(pl_module)
        if observer is None:
            return
        for layer, failure in observer.failures.items():
            self.warn_once(f"attention of {layer} is not measured: {failure}.")
        layers = same_layers(trainer, observer.seen, observer.split)
        if layers is None:
            self.warn_once("ranks ran different attention layers in one step; it is left out.")
            return
        heads = [head for head in heads_of(trainer, layers, observer.split) if head.rows > 0]
        if heads:
            self._publish(trainer, heads)
        elif not observer.failures:
            self.warn_once(
                "no call of F.scaled_dot_product_attention, nn.MultiheadAttention or a softmax "
                "over (B, H, Q, K) was seen in a training step, so there is nothing to measure."
            )

    def catch_up(self, trainer: Trainer) -> None:
        """Write the table; and never observe beyond a batch, should one have been skipped."""
        super().catch_up(trainer)
        self._pause(trainer.lightning_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A step that was cut off must not stay observed."""
        super().on_exception(trainer, pl_module, exception)
        self._pause(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same."""
        super().teardown(trainer, pl_module, stage)
        self._pause(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A table that goes as far as the checkpoint."""
        self._write()

    def _pause(self, module: LightningModule) -> None:
        self.stop_measuring(module)
        self._write()

    def _write(self) -> None:
        rows, self._unwritten = self._unwritten, []
        if rows and self._folder is not None:
            file = f"{self.name.replace('/', '_')}.csv"
            self.save_table(self._folder / file, COLUMNS, rows, 1)

    def reset(self) -> None:
        """A new training has a past of its own."""
        super().reset()
        self.table, self._unwritten, self._history, self._max_logits = [], [], {}, []
        self.alarm.reset()

    # -- what --------------------------------------------------------------------------------------

    def _publish(self, trainer: Trainer, heads: list[Head]) -> None:
        step = self._measured_step
        self.table = [dict(zip(COLUMNS, (step, *head.cells()), strict=True)) for head in heads]
        if trainer.is_global_zero and self._folder:
            self._unwritten += self.table
        max_logit = max(head.max_logit for head in heads)
        self._max_logits = [*self._max_logits, (step, max_logit)][-self.window :]
        mean = sum(head.entropy for head in heads) / len(heads)
        values = {
            "mean": mean,
            "min": min(head.entropy for head in heads),
            "max_logit": max_logit,
        }
        bounds = [h.lower_bound for h in heads if h.lower_bound == h.lower_bound]
        if bounds:
            values["lower_bound"] = sum(bounds) / len(bounds)
        steps, sizes = zip(*self._max_logits, strict=True)
        onset = onset_step(steps, sizes, self.threshold)
        if onset is None:
            self.withdraw(trainer, f"{self.name}/onset_step")
        else:
            values["onset_step"] = onset
        self.publish(trainer, {f"{self.name}/{key}": value for key, value in values.items()})
        self._judge(trainer, heads)

    def _judge(self, trainer: Trainer, heads: list[Head]) -> None:
        """Compare every layer with its own past; speak when the alarm goes on."""
        layers: dict[str, list[float]] = {}
        for head in heads:
            layers.setdefault(head.layer, []).append(head.entropy)
        worst, where = 1.0, ""
        for layer, entropies in layers.items():
            now, past = sum(entropies) / len(entropies), self._history.get(layer, [])
            before = sum(past) / len(past) if past else 0.0
            if before > 0 and now / before < worst:
                worst, where = now / before, layer
            self._history[layer] = [*past, now][-self.window :]
        good = worst >= min(1.2 * self.drop_ratio, 1.0)
        if self.alarm.update(bad=worst < self.drop_ratio, good=good):
            announce(
                trainer,
                self.action,
                "Attention entropy dropped",
                f"AttentionEntropyMonitor: the attention entropy of {where} fell to {worst:.2f} of "
                f"its mean over the last {self.window} measurements, by step "
                f"{self._measured_step}. If the loss follows: a lower learning rate, a longer "
                "warm-up, sigma_reparam(module), or a norm on queries and keys.",
            )

    # -- resuming ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next measurement depends on, as plain numbers."""
        return {
            "history": {layer: list(means) for layer, means in self._history.items()},
            "max_logits": [list(point) for point in self._max_logits],
            "alarm": [self.alarm.on, self.alarm.count],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._history = {layer: list(means) for layer, means in state_dict["history"].items()}
        self._max_logits = [(int(step), size) for step, size in state_dict["max_logits"]]
        self.alarm.on, self.alarm.count = state_dict["alarm"]
