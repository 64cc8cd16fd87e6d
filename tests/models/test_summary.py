"""Multiply-adds against published figures and against sums by hand."""

import time

import pytest
import timm
import torch
from torch import nn

from isic.models.network import LesionNetwork
from isic.models.summary import count, in_words, multiply_adds
from tests.archives import TINY

# G multiply-adds: the papers' tables, or timm's results/model_metadata for the last three.
PUBLISHED = [
    ("resnet18", 224, 1.82),
    ("resnet50", 224, 4.11),
    ("vit_base_patch16_224", 224, 17.58),
    ("tf_efficientnetv2_s", 300, 5.35),
    ("swinv2_tiny_window8_256", 256, 5.96),
    ("eva02_small_patch14_336", 336, 15.48),
]


@pytest.mark.parametrize(("name", "side", "published"), PUBLISHED)
def test_it_agrees_with_published_figures(name, side, published):
    network = timm.create_model(name)
    began = time.process_time()
    found = count(network, torch.zeros(1, 3, side, side)) / 1e9
    assert time.process_time() - began < 3
    assert found == pytest.approx(published, rel=0.02)


def test_it_agrees_with_a_sum_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(128, 5)
    )
    assert count(network, torch.zeros(1, 3, 4, 4)) == 3 * 8 * 9 * 16 + 128 * 5


def test_it_changes_nothing():
    network = timm.create_model(TINY)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    assert count(network, torch.zeros(1, 3, 32, 32)) > 0
    assert network.training
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_two_views_cost_twice():
    def network(**options):
        return LesionNetwork(TINY, n_logits=1, pretrained=False, image_size=32, **options)

    one, views = multiply_adds(network(), 32), ("a", "b")
    width = network().head.in_features
    for shared in (False, True):
        two = network(views=views, fusion={"shared": shared})
        assert multiply_adds(two, 32) == 2 * one
    layout = {"groups": {"age": [0, 1]}, "absent": [0.0, 1.0]}
    assert multiply_adds(network(metadata=layout), 32) == one + 2 * 512 + 512 * 128 + 128
    assert width


def test_in_words():
    network = LesionNetwork("cancernet_sca", n_logits=2, pretrained=False, image_size=224)
    assert in_words(network, 224) == "1.00 M parameters, 0.44 G multiply-adds"

    class Looks(nn.Module):
        def forward(self, batch):
            return batch["image"].sum() if batch["image"].float().mean() > 0 else batch["image"]

    assert in_words(Looks(), 32) == "0.00 M parameters"
