# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A re-run training step gives what the real one gave, and leaves nothing behind."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn
from training import portrait, require_equal

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.replay.probe import (
    Probe,
    ProbeFailed,
    has_probe_step,
    observe,
    stop_observing,
)
from lightning_losses.callbacks.replay.training_state import TrainingState

CPU = torch.device("cpu")


class Step(LossMixin, L.LightningModule):
    """A module whose training step is given to it."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.net, self.loss = nn.Linear(3, 4), build_objective("ce")
        self.tail = nn.Linear(3, 2)
        self.done: list[str] = []
        self.step = step

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(self, batch)


class Watched:
    """Outside of the module: what it notes is not put back, so that a test can see it."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def note(self, what: Any) -> None:
        self.notes.append(what)


def trainer(*optimizers: Any) -> Any:
    return SimpleNamespace(
        optimizers=list(optimizers),
        precision_plugin=Precision(),
        strategy=SimpleNamespace(root_device=CPU),
    )


def probe(module: Any, batch: Any, call: int = 0, optimizers: Any = ()) -> Probe[dict[str, Any]]:
    return Probe(trainer(*optimizers), module, batch, 0, dict, call)


def batch() -> dict[str, Tensor]:
    return {"x": torch.arange(6.0).reshape(2, 3), "y": torch.tensor([0, 3])}


# ---------------------------------------------------------------------------------- the re-run
def test_gives_the_named_tensors_at_the_present_parameters() -> None:
    module = Step(lambda s, b: s.compute_loss(logits=s.net(b["x"]), target=b["y"]))
    p = probe(module, batch())
    found = p.run()
    assert set(found) == {"logits", "target"}
    torch.testing.assert_close(found["logits"], module.net(batch()["x"]))
    assert not found["logits"].requires_grad
    with torch.no_grad():
        module.net.weight.add_(1.0)
    torch.testing.assert_close(p.run()["logits"], module.net(batch()["x"]))


def test_leaves_by_an_exception_that_users_do_not_catch() -> None:
    seen = Watched()

    def step(module: Any, batch: Any) -> None:
        try:
            module.compute_loss(logits=module.net(batch["x"]), target=batch["y"])
        except Exception:
            seen.note("caught")
        seen.note("after")

    assert "logits" in probe(Step(step), batch()).run()
    assert seen.notes == []


def test_each_run_gets_the_batch_as_it_was() -> None:
    def step(module: Any, batch: Any) -> Any:
        x = batch.pop("x")
        return module.compute_loss(logits=module.net(x.mul_(2)), target=batch.pop("y"))

    mine = batch()
    p = probe(Step(step), mine)
    assert torch.equal(p.run()["logits"], p.run()["logits"])
    require_equal("batch", mine, batch())
    mine["x"].zero_()  # later changes do not matter either
    assert p.run()["logits"].std() > 0


def test_later_calls_can_be_read() -> None:
    def step(module: Any, batch: Any) -> Any:
        z = module.net(batch["x"])
        first = module.compute_loss(logits=z, target=batch["y"])
        module.manual_backward(first)
        return module.compute_loss(logits=z * 2, target=batch["y"])

    module = Step(step)
    first, second = probe(module, batch()).run(), probe(module, batch(), call=1).run()
    torch.testing.assert_close(second["logits"], 2 * first["logits"])
    assert module.loss_record is None  # the first call's record is gone again
    with pytest.raises(ProbeFailed, match="called compute_loss 2 times, not 3"):
        probe(module, batch(), call=2).run()


def test_what_acts_beyond_the_module_does_nothing() -> None:
    seen = Watched()
    weights = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    adam, sgd = torch.optim.Adam([weights[0]]), torch.optim.SGD([weights[1]], lr=1.0)

    def step(module: Any, batch: Any) -> None:
        module.log("a", 1.0)
        module.log_dict({"b": 1.0})
        module.print("c")
        module.zero_grad()
        one, two = module.optimizers()
        module.toggle_optimizer(one)
        seen.note(two.param_groups[0]["lr"])  # they can be read
        one.zero_grad()
        one.step()
        with two.toggle_model(sync_grad=False):
            module.manual_backward(torch.ones(()))
        module.clip_gradients(one, 1.0)
        module.untoggle_optimizer(one)
        module.lr_schedulers().step()

        def closure() -> None:
            module.compute_loss(logits=module.net(batch["x"]), target=batch["y"])

        two.step(closure)
        seen.note("not reached")

    module = Step(step)
    module.optimizers = lambda: [adam, sgd]  # type: ignore[method-assign]
    schedule = torch.optim.lr_scheduler.StepLR(sgd, 1)
    module.lr_schedulers = lambda: schedule  # type: ignore[method-assign]
    module.net.weight.grad = torch.ones(4, 3)
    grad, before = module.net.weight.grad, dict(module.__dict__)
    assert "logits" in probe(module, batch(), optimizers=(adam, sgd)).run()
    assert seen.notes == [1.0]
    assert schedule.last_epoch == 0
    assert module.net.weight.grad is grad
    assert dict(module.__dict__) == before
    for w in weights:
        assert torch.equal(w, torch.ones(2))


def test_gradients_and_flags_are_put_back() -> None:
    def step(module: Any, batch: Any) -> Any:
        module.net.zero_grad()
        module.net.requires_grad_(False)
        module.eval()
        return module.compute_loss(logits=module.net(batch["x"]), target=batch["y"])

    module = Step(step)
    module.net.weight.grad = grad = torch.ones(4, 3)
    probe(module, batch()).run()
    assert module.net.weight.grad is grad
    assert all(p.requires_grad for p in module.parameters())
    assert module.training


def test_errors_of_the_step_come_through_and_leave_nothing_behind() -> None:
    def step(module: Any, batch: Any) -> None:
        module.done.append("x")
        torch.rand(3)
        raise KeyError("labels")

    module = Step(step)
    p = probe(module, batch())
    before, state = copy.deepcopy(portrait(module)), torch.get_rng_state()
    with pytest.raises(KeyError, match="labels"):
        p.run()
    require_equal("module", before, portrait(module))
    assert module.done == []
    assert torch.equal(torch.get_rng_state(), state)
    assert "_capture" not in module.__dict__


def test_a_step_without_compute_loss_is_named() -> None:
    with pytest.raises(ProbeFailed, match="called compute_loss 0 times, not 1"):
        probe(Step(lambda s, b: None), batch()).run()


def test_a_step_with_batch_alone_is_called_so() -> None:
    class Short(Step):
        def training_step(self, batch: Any) -> Any:  # type: ignore[override]
            return self.step(self, batch)

    module = Short(lambda s, b: s.compute_loss(logits=s.net(b["x"]), target=b["y"]))
    assert "logits" in probe(module, batch()).run()


def test_probe_step_wins() -> None:
    class Own(Step):
        def probe_step(self, batch: Any) -> dict[str, Tensor]:
            self.done.append("probe")
            self.log("x", 1.0)
            return {"logits": self.net(batch["x"])}

    module = Own(lambda s, b: 1 / 0)
    assert has_probe_step(module)
    assert not has_probe_step(Step(None))
    p = probe(module, batch())
    assert p.stands_alone
    torch.testing.assert_close(p.run()["logits"], module.net(batch()["x"]))
    assert module.done == []


# --------------------------------------------------------------------------- parameters that move
@pytest.mark.parametrize("silently", [False, True])
def test_a_moved_parameter_is_named_and_put_back(silently: bool) -> None:
    def step(module: Any, batch: Any) -> Any:
        tail = module.tail.weight
        (tail.data if silently else tail.detach()).mul_(0.9)
        return module.compute_loss(logits=module.net(batch["x"]), target=batch["y"])

    module = Step(step)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    p = probe(module, batch())
    with pytest.raises(ProbeFailed, match=r"'tail\.weight' itself"):
        p.run_checked()
    require_equal("state", before, dict(module.state_dict()))


def test_run_checked_at_other_values() -> None:
    module = Step(lambda s, b: s.compute_loss(logits=s.net(b["x"]), target=b["y"]))
    p, weight = probe(module, batch()), module.net.weight.detach().clone()
    version = module.net.weight._version
    found = p.run_checked([(module.net.weight, torch.zeros_like(weight))])
    torch.testing.assert_close(found["logits"], module.net.bias.expand(2, 4))
    assert torch.equal(module.net.weight, weight)
    assert module.net.weight._version == version  # a graph over the weight stays usable


def test_require_still_sees_the_real_step() -> None:
    module = Step(None)
    p = probe(module, batch())
    p.require_still()
    with torch.no_grad():
        module.tail.bias.add_(1.0)
    with pytest.raises(ProbeFailed, match=r"'tail\.bias'"):
        p.require_still()


# ------------------------------------------------------------------------------------- observers
def test_observers_come_and_go_in_any_order() -> None:
    module = Step(None)
    first, second = Watched(), Watched()
    observe(module, first.note)
    observe(module, second.note)
    module.compute_loss(logits=torch.zeros(2, 4), target=torch.tensor([0, 1]))
    stop_observing(module, first.note)
    module.compute_loss(logits=torch.zeros(2, 4), target=torch.tensor([0, 1]))
    stop_observing(module, first.note)
    stop_observing(module, second.note)
    module.compute_loss(logits=torch.zeros(2, 4), target=torch.tensor([0, 1]))
    assert (len(first.notes), len(second.notes)) == (1, 2)
    assert "_capture" not in module.__dict__


def test_copies_of_an_observed_module_are_not_observed() -> None:
    module, seen = Step(None), Watched()
    observe(module, seen.note)
    copied, other = copy.deepcopy(module), Watched()
    copied.compute_loss(logits=torch.zeros(2, 4), target=torch.tensor([0, 1]))
    assert seen.notes == []
    observe(copied, other.note)
    copied.compute_loss(logits=torch.zeros(2, 4), target=torch.tensor([0, 1]))
    assert (len(seen.notes), len(other.notes)) == (0, 1)


# --------------------------------------------------------------------------------- training state
class Everything(nn.Module):
    """One attribute of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.weight = nn.BatchNorm1d(3), nn.Parameter(torch.ones(3))
        self.register_buffer("buffer", torch.zeros(2))
        self.number, self.text, self.tensor = 1, "a", torch.zeros(2)
        self.list, self.dict, self.set = [torch.zeros(2), [1]], {"a": {"b": 1}}, {1, 2}
        self.deque, self.ordered = deque([1, 2], maxlen=2), OrderedDict(a=1, b=2)
        self.default: Any = defaultdict(list, {"a": [1]})
        self.hidden = [nn.BatchNorm1d(3)]
        self.pair = (torch.zeros(1), {"x": 1})
        self.loop: Any = [1]
        self.loop.append(self.loop)
        self.generator = torch.Generator().manual_seed(0)
        self.random, self.numpy = random.Random(0), np.random.default_rng(0)
        self.legacy = np.random.RandomState(0)

    def change(self) -> None:
        self.norm(torch.randn(4, 3))
        self.hidden[0](torch.randn(4, 3))
        self.buffer.add_(1)
        self.buffer = self.buffer + 1
        self.register_buffer("more", torch.zeros(1))
        self.added = 1
        self.number += 1
        self.text += "b"
        self.tensor.data.add_(1)
        self.list[0].add_(1)
        self.list[1].append(2)
        self.list.append(3)
        self.dict["a"]["b"] = 2
        self.dict["c"] = 1
        self.set.add(3)
        self.deque.append(3)
        self.ordered.move_to_end("a")
        self.default["b"].append(1)
        self.pair[0].add_(1)
        self.pair[1]["x"] = 2
        self.loop.insert(0, 0)
        self.train(False)
        del self.random
        self.draw()

    def draw(self) -> list[float]:
        own = [torch.rand(1, generator=self.generator).item(), self.numpy.random()]
        everyone = [torch.rand(1).item(), random.random(), np.random.rand(), self.legacy.rand()]
        return own + everyone


def contents(module: Everything) -> dict[str, Any]:
    """A deep copy, but for the list that holds itself."""
    return {k: copy.deepcopy(v) for k, v in portrait(module).items() if "loop" not in k}


def test_everything_is_put_back_as_the_very_object_it_was() -> None:
    module = Everything()
    objects = dict(module.__dict__)
    before, state = contents(module), TrainingState(module, CPU)
    drawn = module.draw()
    for _ in range(2):  # any number of times
        module.change()
        state.put_back()
        require_equal("module", before, contents(module))
        assert module.loop == [1, module.loop]
        assert list(module.ordered) == ["a", "b"]
        assert all(module.__dict__[k] is v for k, v in objects.items())
        assert set(module.__dict__) == set(objects)
        assert module.draw() == drawn
        state.put_back()


def test_parameters_and_views_of_them_are_left_as_they_are() -> None:
    module = Everything()
    module.view, loose = module.weight.detach()[:2], torch.ones(2)
    module.loose = loose
    state = TrainingState(module, CPU, [loose])
    module.weight.data.add_(1)
    loose.add_(1)
    state.put_back()
    assert torch.equal(module.weight, torch.full((3,), 2.0))
    assert torch.equal(module.view, torch.full((2,), 2.0))
    assert torch.equal(loose, torch.full((2,), 2.0))
    assert {"weight", "norm.weight", "hidden.0.bias"} <= set(state.parameters)


def test_a_graph_over_a_buffer_survives() -> None:
    module = Everything()
    x = torch.ones(2, requires_grad=True)
    y = (x * module.buffer).sum()  # saves the buffer for backward
    state = TrainingState(module, CPU)
    module.buffer.data.add_(1)
    state.put_back()
    y.backward()
    assert torch.equal(x.grad, torch.zeros(2))


def test_tensors_that_cannot_be_written_are_let_be() -> None:
    module = Everything()
    module.wide = torch.zeros(1).expand(5)
    module.meta = torch.zeros(2, device="meta")
    module.sparse = torch.eye(3).to_sparse()
    state = TrainingState(module, CPU)
    module.number = 5
    state.put_back()
    assert module.number == 1


def test_sigmoids_of_a_slice_of_the_labels_are_refused() -> None:
    from lightning_losses import ClassRange
    from lightning_losses.callbacks.replay.step_rows import step_rows

    held = ClassRange(0, 1, 3)  # one column, which is no binary score
    named = {"hidden": torch.randn(2, 4), "head_weight": torch.randn(1, 4), "class_range": held}
    assert step_rows(named, -100, 10).problem.all_classes == 3
    with pytest.raises(ValueError, match="redistribute"):
        step_rows(named, -100, 10, head="sigmoid")
