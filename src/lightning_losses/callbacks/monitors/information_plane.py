# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What does each layer keep of the input, and what of the label? The information plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_losses.callbacks.attention.calls import FUSED
from lightning_losses.callbacks.base.csv_table import folder_of
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.gather import all_rows
from lightning_losses.callbacks.reading.module_tree import compiled_parts, matching_modules
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.metrics.representation.ebab import layer_information

COLUMNS = ("epoch", "layer", "itx", "ity")
UNITS = 1024  # of a layer that are looked at
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Hardswish,
    nn.Tanh,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Softsign,
)


class InformationPlaneMonitor(EpochMonitor):
    """Logs ``information_plane/<layer>/itx`` and ``ity`` (bits) of every validation and test epoch.

    I(T; X) and I(T; Y) of a layer's output T with the input and the class, by binning at equal
    counts (EBAB; Chelombiev and others 2019, arXiv 1902.09037): see
    `layer_information`. Inputs are taken to be different from each
    other. Where every row has a code of its own, as in wide layers, both numbers say only how many
    rows there are, which is said once; fewer bins or a narrower layer help.

    Outputs are read by forward hooks that exist during these epochs only: the last call of a layer
    in a step, evenly spaced rows, at least ``max_rows / 2`` of many, and of wide layers evenly
    spaced units, at most 1024. Parts in ``torch.compile`` and within torch's own attention
    modules, which hooks would send another way, are left out. Needs class indices as ``target``.
    The numbers of the last validation epoch of all ranks are in ``table`` and, if the run has a
    logger with a folder, in ``<trainer.log_dir>/information_plane.csv``. Nothing is kept between
    epochs, so there is nothing to resume.

    Args:
        layers: names of submodules, or patterns such as ``"encoder.*"``. None: all activation
            functions that are modules.
        bins: of a layer's activations.
        max_rows: 2 to 10000.
        name: first part of the logged names, and the file's name; give a second monitor another.

    Raises:
        ValueError: an option out of range.

    Examples:
        >>> monitor = InformationPlaneMonitor(layers=["net.0", "net.2"], bins=30)
    """

    watches = ("target",)
    identity = ("bins", "name")

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        bins: int = 30,
        max_rows: int = 1000,
        name: str = "information_plane",
    ) -> None:
        super().__init__()
        if bins < 1 or not 2 <= max_rows <= 10000:
            raise ValueError(f"needs bins >= 1 and max_rows 2 to 10000, got {bins}, {max_rows}.")
        if isinstance(layers, str):
            raise ValueError(f"layers is a list of patterns; write [{layers!r}].")
        self.layers, self.bins, self.max_rows, self.name = layers, bins, max_rows, name
        self.table: list[dict[str, Any]] = []
        self._hooks: list[RemovableHandle] = []
        self._outputs: dict[str, Tensor] = {}  # in this batch
        self._rows: dict[str, StrideSample] = {}

    # -- when --------------------------------------------------------------------------------------

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and begin to look at the layers."""
        self._unhook()
        self._rows = {}
        self.start_measuring(module)
        for name, part in self._chosen(module).items():
            self._rows[name] = StrideSample(self.max_rows)
            self._hooks.append(part.register_forward_hook(partial(self._look, name)))

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Keep some of the rows that the layers put out in this batch."""
        outputs, self._outputs = self._outputs, {}
        record = self.new_record(module)
        target = None if record is None else record.captured.get("target")
        if record is None or not isinstance(target, Tensor) or target.is_floating_point():
            self.warn_once("needs a step that calls compute_loss with class indices as target.")
            return
        for name, output in outputs.items():
            rows = _rows_of(output, len(target))
            if rows is None:
                self.warn_once(
                    f"{name} puts out {tuple(output.shape)}, which are not {len(target)} rows; it "
                    "is left out."
                )
                continue
            keep = rows.isfinite().all(1)
            if record.stats.valid is not None:
                keep = keep & record.stats.valid
            self._rows[name].add(rows[keep], target[keep])

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Bring the rows of all ranks together, which therefore all come here; log and write."""
        self._unhook()
        self.stop_measuring(module)
        folder = folder_of(trainer)  # all ranks ask
        table, useless = [], []
        for name, kept in self._rows.items():
            rows = all_rows(trainer, kept, self.max_rows)
            if isinstance(rows, str) or len(rows[0]) < 2:
                why = rows if isinstance(rows, str) else "fewer than two rows were seen"
                self.warn_once(f"{name} is left out: {why}.")
                continue
            activations, target = rows
            information = layer_information(activations, target, self.bins)
            if information.codes == len(activations):
                useless.append(name)
            cells = (trainer.current_epoch, name, float(information.itx), float(information.ity))
            table.append(dict(zip(COLUMNS, cells, strict=True)))
        self._rows = {}
        if useless:
            self.warn_once(
                f"every row has a code of its own in {', '.join(useless)}: there itx is log2 of "
                "the number of rows and ity the entropy of the labels, whatever the layer does. "
                f"Write fewer bins than {self.bins}, or look at narrower layers."
            )
        self.publish_epoch(
            {
                f"{self.name}/{row['layer']}/{key}": torch.tensor(row[key], device=module.device)
                for row in table
                for key in COLUMNS[2:]
            }
        )
        if stage != "val" or not table:
            return
        self.table = table
        if trainer.is_global_zero and folder is not None:
            file = f"{self.name.replace('/', '_')}.csv"
            self.save_table(folder / file, COLUMNS, self.table, key=2)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind when a run is cut off within an epoch."""
        self._unhook()
        super().on_exception(trainer, pl_module, exception)

    # -- what --------------------------------------------------------------------------------------

    def _chosen(self, module: LightningModule) -> dict[str, nn.Module]:
        """The layers that are looked at, by name, the same on every rank."""
        if compiled_parts(module):
            self.warn_once("layers within torch.compile cannot be seen, so nothing is measured.")
            return {}
        matching = matching_modules(module, ["*"] if self.layers is None else self.layers)
        if self.layers is None:
            matching = {
                name: part for name, part in matching.items() if isinstance(part, ACTIVATIONS)
            }
        fused = {id(p) for m in module.modules() if isinstance(m, FUSED) for p in m.modules()}
        left = {name: part for name, part in matching.items() if id(part) not in fused}
        if not left:
            names = [name for name, _ in module.named_modules() if name][:8]
            self.warn_once(
                f"no layer matches layers={self.layers}, so nothing is measured; write patterns of "
                f"names such as {', '.join(names)}."
            )
        return left

    def _look(self, name: str, layer: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
            self.warn_once(f"{name} does not put out a float tensor (B, ...); it is left out.")
            return
        # A copy, because what comes after may write in place.
        self._outputs[name] = _some_units(output.detach()).clone()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._outputs = [], {}


def _some_units(output: Tensor) -> Tensor:
    """``(B, D)`` and ``(B, T, D)`` thinned along D, ``(B, ...)`` of more dimensions flattened."""
    if output.ndim > 3:
        output = output.flatten(1)
    return output[..., :: max(1, math.ceil(output.shape[-1] / UNITS))]


def _rows_of(output: Tensor, rows: int) -> Tensor | None:
    """``(rows, units)``, a row a sample or a row a position; None if it is neither."""
    if len(output) == rows:
        return _some_units(output.flatten(1))
    return output.flatten(0, -2) if math.prod(output.shape[:-1]) == rows else None
