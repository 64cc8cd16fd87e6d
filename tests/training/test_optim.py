"""The schedule by hand and across a resume; which parameters decay."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.optim import SGD, AdamW, NAdam

from isic.training.module import LesionClassifier
from isic.training.optim import WarmupCosine, as_before_loading, parameter_groups


def schedule(epochs=10, steps=100, warmup=1.0, final=0.01, lr=0.5):
    module = nn.Linear(3, 2)
    optim = WarmupCosine(partial(SGD, lr=lr), warmup_epochs=warmup, final_lr_ratio=final)
    made = optim.configure(module, total_steps=steps, epochs=epochs)
    return made["optimizer"], made["lr_scheduler"]


def rates(optimizer, scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_warm_up_and_cosine_by_hand():
    optimizer, entry = schedule()
    seen = rates(optimizer, entry["scheduler"], 101)
    assert entry["interval"] == "step"
    assert seen[:10] == pytest.approx([0.5 * (i + 1) / 11 for i in range(10)])
    assert seen[10] == pytest.approx(0.5)  # the peak, after one epoch of ten steps
    assert seen[55] == pytest.approx(0.5 * (0.01 + 0.99 * 0.5))  # half of the cosine
    assert seen[100] == pytest.approx(0.005)
    middle = [0.01 + 0.99 * (1 + math.cos(math.pi * (i - 10) / 90)) / 2 for i in range(10, 101)]
    assert seen[10:] == pytest.approx([0.5 * m for m in middle])


def test_no_warm_up_starts_at_the_peak():
    optimizer, entry = schedule(warmup=0)
    assert rates(optimizer, entry["scheduler"], 1) == [0.5]


def test_warm_up_takes_at_most_half_of_a_short_training():
    optimizer, entry = schedule(epochs=1, steps=8, warmup=5)
    seen = rates(optimizer, entry["scheduler"], 9)
    assert seen[4] == max(seen)
    assert seen[8] == pytest.approx(0.005)


def test_a_resumed_schedule_goes_on():
    whole = rates(*parts(schedule()), 100)
    optimizer, scheduler = parts(schedule())
    rates(optimizer, scheduler, 37)
    saved = optimizer.state_dict(), scheduler.state_dict()
    optimizer, scheduler = parts(schedule())
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert rates(optimizer, scheduler, 63) == whole[37:]


def parts(made):
    return made[0], made[1]["scheduler"]


def test_one_dimensional_parameters_do_not_decay():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimizer = AdamW(parameter_groups(module), lr=1e-3, weight_decay=0.05)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert len(decay) == 6
    for parameter in module.parameters():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0)


def test_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(module)) == 2


def test_position_embeddings_do_not_decay():
    backbone = timm.create_model("test_vit", num_classes=0)
    network = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 1)})
    decayed, plain = (g["params"] for g in parameter_groups(network))
    held = {id(p) for p in plain}
    assert {id(backbone.pos_embed), id(backbone.cls_token)} <= held
    assert len(decayed) + len(plain) == len(list(network.parameters()))
    assert any(p is network["head"].weight for p in decayed)
    assert torch.is_tensor(decayed[0])


def test_a_resumed_nadam_does_not_ask_its_device_for_a_product_at_each_step():
    """Loading moves it there, where a fresh one keeps it on the CPU."""
    here, there = (nn.Parameter(torch.zeros(4, device=d)) for d in ("cpu", "meta"))
    here.grad = torch.ones(4)
    fresh, resumed = NAdam([here]), NAdam([there])
    fresh.step()
    resumed.load_state_dict(fresh.state_dict())
    assert resumed.state[there]["mu_product"].device.type == "meta"
    # nothing comes back from there: a stand-in that knows how
    state = resumed.state[there]
    state["mu_product"] = SimpleNamespace(cpu=lambda: torch.tensor(0.5))
    as_before_loading(resumed)
    assert state["mu_product"].item() == 0.5
    assert {k: v.device.type for k, v in state.items() if k != "mu_product"} == {
        "step": "cpu",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }
    resumed.param_groups[0]["capturable"] = True
    state["mu_product"] = torch.ones((), device="meta")
    as_before_loading(resumed)
    assert state["mu_product"].device.type == "meta"


def test_a_module_looks_at_its_optimizers_before_it_trains():
    optimizer = NAdam([parameter := nn.Parameter(torch.zeros(4))])
    optimizer.state[parameter]["mu_product"] = SimpleNamespace(cpu=lambda: "brought back")
    module = LesionClassifier(nn.Linear(1, 1), classes=("a", "b"))
    module._trainer = SimpleNamespace(optimizers=[optimizer])
    module.on_train_start()
    assert optimizer.state[parameter]["mu_product"] == "brought back"
