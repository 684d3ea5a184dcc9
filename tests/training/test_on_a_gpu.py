"""A training step and a validation of every family on a GPU that is not there: see `fake_gpu`.

An operation on tensors of two devices, or numpy of a tensor on the device, fails here as it would there.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")

from fake_gpu import GPU, fake_gpu
from tests.training.conftest import RECIPE, tiny_recipe
from tests.training.test_adversarial import recipe as wgan_recipe
from tests.training.test_variational import CONV, WAVENET, vae_recipe
from wavegen.config import Recipe
from wavegen.data.store import Store
from wavegen.models import ConditioningInputs
from wavegen.training import trainer
from wavegen.training.families import build_module
from wavegen.training.module import TrainingModule

RNN = {"family": "rnn", "hidden_channels": 8, "embedding_channels": 4, "output_channels": 8,
       "conditioning": {"label": True, "speaker": True, "hidden_channels": 8}}
FAMILIES = {
    "wavenet": lambda: tiny_recipe(precision="32"),
    "wavenet in bf16": lambda: tiny_recipe(),
    "wavenet in windows": lambda: tiny_recipe(chunk_samples=400),
    "rnn": lambda: Recipe.model_validate({**RECIPE, "model": RNN, "training": {
        **RECIPE["training"], "samples_per_batch": 800, "tail_samples": 0, "chunk_samples": 160}}),
    "vae": lambda: vae_recipe(CONV, prior="conditional"),
    "vae with a wavenet": lambda: vae_recipe(WAVENET),
    "wgan": lambda: wgan_recipe(),
    "wgan clipped": lambda: wgan_recipe(game={"regulariser": "clip"}),
    "gan": lambda: wgan_recipe(game={"objective": "js"}),
}


def made(recipe: Recipe, store: Store) -> tuple[TrainingModule, SimpleNamespace]:
    """The module as a trainer on one device has it before the first step."""
    module = build_module(recipe, trainer.build_vocabulary(store), store.digest).to(GPU)
    held_out = trainer.ValidationBatches(trainer._windows(recipe, store, "test"), 1, 0, 1)
    lightning = SimpleNamespace(val_dataloaders=SimpleNamespace(dataset=held_out), world_size=1, global_step=0,
                                is_global_zero=True, global_rank=0, logger=None)
    module._trainer = lightning
    module.on_fit_start()
    return module, lightning



@pytest.fixture
def alone(monkeypatch):
    for name, value in (("trainer", property(lambda self: self._trainer)), ("global_step", 3), ("global_rank", 0),
                        ("log", lambda self, *_, **__: None), ("log_dict", lambda self, *_, **__: None)):
        monkeypatch.setattr(TrainingModule, name, value)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device


def step(module: Any, batch: Any) -> list[torch.Tensor]:
    """One step of every optimizer; the gradients are gone afterwards."""
    found = module.configure_optimizers()
    if module.automatic_optimization:
        loss = module.training_step(batch, 0)
        loss.backward()
        found["optimizer"].step()
        module.average_weights()
        return [found["optimizer"]]
    optimizers, schedules = found
    wrapped = [SimpleNamespace(optimizer=one, step=one.step, zero_grad=one.zero_grad) for one in optimizers]
    module.optimizers, module.lr_schedulers = lambda: wrapped, lambda: [entry["scheduler"] for entry in schedules]
    module.manual_backward = lambda loss: loss.backward()
    module.training_step(batch, 0)
    return optimizers


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_and_a_validation_stay_on_the_device(family, alone, tiny_store):
    recipe, store = FAMILIES[family](), Store.open(tiny_store)
    with fake_gpu() as gpu:
        module, _ = made(recipe, store)
        before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
        order = iter(trainer.TrainingBatches(trainer._windows(recipe, store, "train"), 0, 1, 0, 1,
                                             module.batches_per_step))
        gpu.counts.clear()
        optimizers, waits = step(module, next(order)), gpu.counts["waits"]
        for optimizer in optimizers:
            assert optimizer.bad_steps == 0 and np.isfinite(optimizer.gradient_norm)
        changed = [name for name, value in module.model.named_parameters()
                   if bool((value.detach() != before[name]).any())]
        assert len(changed) > len(before) / 2 and all(value.device == GPU for value in module.parameters())
        assert all(np.isfinite(float(value)) for value in module.figures.values())
        if family.startswith("wavenet"):
            assert waits == 2  # for the norm of the gradient; and once in a training for the averages there are
        module.eval()
        lengths = torch.tensor([70, 90])
        told = ConditioningInputs(torch.tensor([0, 1]), torch.tensor([1, 0]), lengths)
        assert module.listen(told, 80).shape == (2, 80) and all(clip.ndim == 1 for clip in module.sounds().values())
        with torch.no_grad():
            module.on_validation_start()
            for batch in trainer.ValidationBatches(trainer._windows(recipe, store, "test"), 1, 0, 1):
                module.validation_step(batch, 0)
            module.on_validation_epoch_end()
        assert module.results and gpu.counts["launches"] > 100
        checkpoint: dict[str, Any] = {}
        module.on_save_checkpoint(checkpoint)
        assert len(checkpoint["wavegen"]["ema"]) >= len(before)
