"""Views and metadata in one network: missing parts, what is dropped, gradients, checkpoints."""

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from isic.errors import ConfigError
from isic.index.isic2024 import INFO
from isic.index.metadata import MetadataEncoder
from isic.models.network import LesionNetwork
from isic.training.checkpoint import load
from isic.training.module import LesionClassifier
from tests.archives import TINY

VIEWS = ("dermoscopic", "clinical")
LAYOUT = {"groups": {"age": [0, 1], "sex": [2, 3, 4]}, "absent": [0.3, 1.0, 0.0, 0.0, 1.0]}
SYSTEMS = {
    "dual": {"views": VIEWS},
    "metadata": {"metadata": LAYOUT},
    "dual and metadata": {"views": VIEWS, "metadata": LAYOUT},
}
KINDS = [
    {"kind": kind, "shared": shared} for kind in ("concat", "gated") for shared in (False, True)
]


def build(n_logits=3, dropout=0.0, fusion="concat", backbone=TINY, **options):
    torch.manual_seed(0)
    return LesionNetwork(
        backbone,
        n_logits=n_logits,
        pretrained=False,
        image_size=32,
        dropout=dropout,
        fusion=fusion,
        **options,
    )


def quiet(**options):
    """Fusion options without chance."""
    return {"view_drop": 0.0, "metadata_drop": 0.0, **options}


def batch(n=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return {
        "image": images[0],
        "image_clinical": images[1],
        "metadata": torch.randn(n, 5, generator=generator),
    }


def lacking(view, rows, n=4):
    has = torch.ones(n, dtype=torch.bool)
    has[rows] = False
    return {f"has_{view}": has}


@pytest.mark.parametrize("fusion", KINDS, ids=lambda k: f"{k['kind']}-{k['shared']}")
@pytest.mark.parametrize("system", SYSTEMS)
def test_gradient_reaches_every_parameter(system, fusion):
    network = build(fusion=quiet(**fusion), **SYSTEMS[system])
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.uniform_(-0.1, 0.1)
    missing = lacking("clinical", [0]) | lacking("dermoscopic", [1])
    logits = network({**batch(), **(missing if "dual" in system else {})})
    assert logits.shape == (4, 3)
    (logits * torch.randn(4, 3)).sum().backward()
    dead = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


def test_gradient_reaches_every_parameter_through_averaged_dropouts():
    network = build(**SYSTEMS["dual and metadata"], dropout=0.5, dropout_samples=5)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.uniform_(-0.1, 0.1)
    missing = lacking("clinical", [0]) | lacking("dermoscopic", [1])
    (network({**batch(), **missing}) * torch.randn(4, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_several_devices_find_a_gradient_for_every_parameter(fusion):
    """None, and DDP waits for ever: also where a batch lacks a view in all rows but one."""
    network = build(fusion=fusion, **SYSTEMS["dual and metadata"])
    for rows in ([], [0, 1, 2], [0, 1, 2, 3]):
        network.zero_grad()
        network({**batch(), **lacking("clinical", rows)}).sum().backward()
        assert all(p.grad is not None for p in network.parameters())


def test_one_image_keeps_its_names_and_its_numbers():
    plain = build(views=VIEWS[:1])
    assert {k.split(".")[0] for k in plain.state_dict()} == {"backbone", "head"}
    bare = torch.nn.Sequential(plain.backbone, plain.head)
    image = batch()["image"]
    expected = bare((image - plain.mean) / plain.std)
    assert torch.equal(plain(batch()), expected)


@pytest.mark.parametrize("fusion", KINDS, ids=lambda k: f"{k['kind']}-{k['shared']}")
@pytest.mark.parametrize("view", VIEWS)
def test_a_missing_view_is_the_learned_stand_in_whatever_its_pixels(view, fusion):
    network = build(views=VIEWS, fusion=fusion).eval()
    given, key = batch(), "image" if view == VIEWS[0] else "image_clinical"
    with torch.no_grad():
        whole = network(given)
        some = network({**given, **lacking(view, [1, 2])})
        blank = given[key].clone()
        blank[[1, 2]] = 0
        same = network({**given, key: blank, **lacking(view, [1, 2])})
        assert torch.equal(some, same)
        assert torch.allclose(some[[0, 3]], whole[[0, 3]], atol=1e-5)
        assert not torch.allclose(some[[1, 2]], whole[[1, 2]], atol=1e-5)
        encoders = [network.backbone, network.backbone]
        if network.others:
            encoders[1] = network.others["clinical"]
        streams = [
            encoder((given[k] - network.mean) / network.std)
            for encoder, k in zip(encoders, ("image", "image_clinical"), strict=True)
        ]
        i = VIEWS.index(view)
        streams[i] = network.stand_ins.vectors[i].expand_as(streams[i])
        assert torch.allclose(
            some[[1, 2]], network.head(network.fusion(streams))[[1, 2]], atol=1e-5
        )


def test_rows_without_a_view_leave_its_batch_norms_alone():
    given, missing = batch(8), lacking("clinical", [0, 1, 2, 3, 4], 8)
    bent = {**given, "image_clinical": given["image_clinical"].clone()}
    bent["image_clinical"][:5] = 0
    states = []
    for images in (given, bent):
        network = build(views=VIEWS)
        network({**images, **missing})
        states.append(network.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_shared_encoder_sees_the_views_in_one_batch():
    network, seen = build(views=VIEWS, fusion={"shared": True}), []
    network.backbone.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    network(batch())
    assert seen == [8]
    assert not [k for k in network.state_dict() if k.startswith("others")]


def test_views_are_dropped_in_training_alone_and_never_the_last():
    stand_ins = build(views=VIEWS, fusion={"view_drop": 0.5}).stand_ins
    has = torch.ones(4000, 2, dtype=torch.bool)
    has[:1000, 0] = False
    torch.manual_seed(0)
    kept = stand_ins._dropped(has)
    assert kept.any(dim=1).all()
    assert torch.equal(kept[:1000], has[:1000])
    lost = (~kept[1000:]).float().mean(dim=0)
    assert torch.allclose(lost, torch.tensor([0.25, 0.25]), atol=0.03)
    stand_ins.eval()
    streams = [torch.randn(4000, stand_ins.vectors.shape[1]) for _ in VIEWS]
    assert torch.equal(stand_ins(streams, torch.ones_like(has))[0], streams[0])


def test_groups_of_metadata_are_dropped_whole_and_become_what_is_absent():
    branch = build(metadata=LAYOUT, fusion={"metadata_drop": 0.3}).metadata
    seen = []
    branch.layers[0].register_forward_hook(lambda m, args, out: seen.append(args[0]))
    given = torch.full((4000, 5), 7.0)
    branch(given)
    gone = seen[0] != given
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert torch.equal(gone[:, 2], gone[:, 3]) and torch.equal(gone[:, 2], gone[:, 4])
    absent = torch.tensor(LAYOUT["absent"]).expand(4000, 5)
    assert torch.equal(seen[0][gone], absent[gone])
    rates = gone.float().mean(dim=0)[[0, 2]]
    both = (gone[:, 0] & gone[:, 2]).float().mean()
    assert torch.allclose(rates, torch.tensor([0.3, 0.3]), atol=0.03)
    assert abs(both - 0.09) < 0.02
    branch.eval()
    branch(given)
    assert torch.equal(seen[1], given)


def test_chance_is_torchs_alone():
    network = build(dropout=0.5, dropout_samples=5, **SYSTEMS["dual and metadata"])
    state = {k: v.clone() for k, v in network.state_dict().items()}
    results = []
    for seed in (3, 3, 4):
        network.load_state_dict(state)
        np.random.seed(seed + len(results))
        torch.manual_seed(seed)
        results.append(network(batch(64)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_averaged_dropout_is_the_mean_of_the_heads_logits():
    network = build(dropout=0.5, dropout_samples=5)
    features = torch.randn(6, network.head.in_features)
    torch.manual_seed(2)
    ours = network.head(network.dropout(features))
    torch.manual_seed(2)
    plain = torch.nn.Dropout(0.5)
    logits = torch.stack([network.head(plain(features)) for _ in range(5)])
    assert torch.allclose(ours, logits.mean(dim=0), atol=1e-6)
    network.eval()
    assert torch.equal(network.dropout(features), features)


def test_one_sample_is_plain_dropout():
    network, features = build(dropout=0.5), torch.randn(6, 4)
    torch.manual_seed(2)
    ours = network.dropout(features)
    torch.manual_seed(2)
    assert torch.equal(ours, torch.nn.functional.dropout(features, 0.5))


def test_gates_of_two_streams_are_a_sigmoid_by_hand():
    fusion = build(views=VIEWS, fusion={"kind": "gated", "width": 7}).fusion
    x, y = torch.randn(2, 5, fusion.project[0].in_features)
    a, b = fusion.gate(torch.cat([x, y], dim=1)).split(7, dim=1)
    z = torch.sigmoid(a - b)
    expected = z * torch.tanh(fusion.project[0](x)) + (1 - z) * torch.tanh(fusion.project[1](y))
    assert torch.allclose(fusion([x, y]), expected, atol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("fusion", ["concat", {"kind": "gated", "shared": True, "width": 16}])
def test_a_checkpoint_rebuilds_it(tmp_path, system, fusion):
    network = build(fusion=fusion, dropout_samples=2, **SYSTEMS[system])
    classifier = LesionClassifier(network, classes=("a", "b", "c"))
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = load(tmp_path / "last.ckpt").network.eval()
    assert again.arguments == network.arguments
    with torch.no_grad():
        assert torch.equal(again(batch()), network.eval()(batch()))


def test_an_encoder_of_metadata_gives_layout_and_columns(tmp_path):
    rows = pd.DataFrame({"age": [40.0, None, 60.0, 20.0], "sex": ["male", "female", None, "male"]})
    encoder = MetadataEncoder.fit(rows, list(rows), info=INFO)
    network = build(metadata=encoder.layout).eval()
    torch.save(encoder.to_dict(), tmp_path / "state.pt")
    again = MetadataEncoder.from_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        nothing = again.encode(pd.DataFrame({"age": [None], "sex": ["not known"]}))
        unknown = network({"image": batch(1)["image"], "metadata": torch.from_numpy(nothing)})
        example = {**network.example(), "image": batch(1)["image"]}
        assert torch.equal(unknown, network(example))


def test_hydra_builds_it_and_leaves_nothing_of_its_own_in_the_checkpoint(tmp_path):
    node = {
        "_target_": "isic.models.network.LesionNetwork",
        "backbone": TINY,
        "pretrained": False,
        "n_logits": 2,
        "image_size": 32,
        "fusion": {"kind": "gated", "width": 8},
    }
    network = instantiate(node, views=list(VIEWS), metadata=LAYOUT)
    torch.save(network.arguments, tmp_path / "arguments.pt")
    arguments = torch.load(tmp_path / "arguments.pt", weights_only=True)
    again = LesionNetwork(**arguments, pretrained=False)
    assert again.arguments == network.arguments
    assert again.metadata.absent.tolist() == pytest.approx(LAYOUT["absent"])


def test_half_precision_ends_in_float32():
    network = build(**SYSTEMS["dual and metadata"], fusion="gated")
    with torch.autocast("cpu", torch.bfloat16):
        logits = network({**batch(), **lacking("clinical", [0])})
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, r"model\.fusion\.kind: expected concat or gated, got 'sum'"),
        ({"fusion": {"knid": "gated"}}, r"model\.fusion: expected kind, .* got knid"),
        ({"fusion": {"view_drop": 1.0}}, r"model\.fusion\.view_drop: .* got 1\.0"),
        ({"dropout_samples": 0}, r"model\.dropout_samples"),
        ({"metadata": {"groups": {"age": [0, 0]}, "absent": [0.0, 0.0]}}, "one group"),
        ({"metadata": {"groups": {"age": [0]}, "absent": [0.0, 0.0]}}, "one group"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_one_row_of_metadata_cannot_train_and_can_be_predicted():
    network = build(metadata=LAYOUT)
    with pytest.raises(ConfigError, match=r"data\.batch_size.*at least 2"):
        network.metadata(batch(1)["metadata"])
    assert network.eval()(batch(1)).shape == (1, 3)
