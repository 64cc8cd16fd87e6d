"""Mixup and cutmix against pixels and targets by hand; draws from (seed, epoch, batch) alone."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional

from isic.errors import ConfigError
from isic.training import SingleImageClassifier
from isic.training.losses import BinaryCrossEntropy, CrossEntropy, Objective
from isic.training.mixing import Mixing
from tests.archives import TINY

KEY = {"n_classes": 3, "epoch": 2, "index": 5}


def batch(n=64, size=16, seed=0):
    """Flat images: the value of a pixel says whose it is."""
    rng = np.random.default_rng(seed)
    level = torch.from_numpy(rng.permutation(200)[:n].astype(np.uint8))
    image = level[:, None, None, None].expand(n, 3, size, size)
    target = torch.from_numpy(rng.integers(0, 3, n))
    image = image.contiguous(memory_format=torch.channels_last)
    return {"image": image, "target": target, "row": torch.arange(n)}


def by_hand(mixing, given, *, epoch=2, index=5, rank=0):
    """The same mix, sample by sample in numpy: float images and targets."""
    n, size = len(given["image"]), given["image"].shape[-1]
    draw = mixing.draw(n, size=size, key=(epoch, index, rank))
    images, targets = [], []
    for i in range(n):
        j, blend = int(draw.partner[i]), float(draw.blend[i])
        own, other = (given["image"][k].numpy().astype(float) for k in (i, j))
        image = blend * own + (1 - blend) * other
        top, bottom, left, right = draw.box[i].tolist()
        image[:, top:bottom, left:right] = other[:, top:bottom, left:right]
        share = blend if (bottom - top) * (right - left) == 0 else 1.0
        share -= (bottom - top) * (right - left) / size**2
        eye = np.eye(3)
        images.append(image)
        targets.append(share * eye[given["target"][i]] + (1 - share) * eye[given["target"][j]])
    return np.stack(images), np.stack(targets)


@pytest.mark.parametrize(
    "options",
    [{"mixup": 0.4}, {"mixup": 0, "cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0, "p": 0.7}],
)
def test_a_mix_is_what_it_is_by_hand(options):
    mixing, given = Mixing(**options), batch()
    mixed = mixing(given, **KEY)
    image, target = by_hand(mixing, given)
    assert mixed["image"].dtype == torch.uint8
    assert mixed["image"].is_contiguous(memory_format=torch.channels_last)
    assert np.abs(mixed["image"].numpy() - image).max() <= 0.51  # whole levels
    assert mixed["target"].numpy() == pytest.approx(target, abs=1e-6)
    assert mixed["row"] is given["row"]


def test_cutmix_shares_are_the_pixels_that_are_left():
    mixing, given = Mixing(mixup=0, cutmix=1.0), batch(size=20)
    mixed = mixing(given, **KEY)
    own = (mixed["image"] == given["image"]).float().mean((1, 2, 3))
    draw = mixing.draw(64, size=20, key=(2, 5, 0))
    other = draw.partner != torch.arange(64)
    assert draw.share[other].tolist() == pytest.approx(own[other].tolist(), abs=1e-6)
    assert (draw.share < 0.4).any()
    assert (draw.share > 0.6).any()


def test_shares_follow_the_beta_distribution():
    for a in (0.2, 1.0, 4.0):
        share = Mixing(mixup=a).draw(20_000, size=8, key=(0, 0, 0)).share.double()
        assert share.mean().item() == pytest.approx(0.5, abs=0.02)
        assert share.var().item() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.05)


def test_both_kinds_and_the_unmixed_come_as_often_as_asked():
    draw = Mixing(mixup=1.0, cutmix=1.0, switch=0.25, p=0.8).draw(20_000, size=64, key=(0, 0, 0))
    cut = draw.box[:, 1] > draw.box[:, 0]
    assert cut.double().mean().item() == pytest.approx(0.8 * 0.25, abs=0.02)
    assert (draw.share == 1).double().mean().item() == pytest.approx(0.2, abs=0.02)


def test_what_is_drawn_follows_from_seed_epoch_batch_and_rank_alone():
    mixing, given = Mixing(mixup=0.4, cutmix=1.0), batch()
    first = mixing(given, **KEY)
    np.random.seed(7)
    torch.manual_seed(7)
    mixing(given, **{**KEY, "epoch": 0})
    again = mixing(given, **KEY)
    assert all(torch.equal(first[k], again[k]) for k in first)
    others = [
        mixing(given, **{**KEY, "epoch": 3}),
        mixing(given, **{**KEY, "index": 6}),
        mixing(given, **KEY, rank=1),
        Mixing(mixup=0.4, cutmix=1.0, seed=1)(given, **KEY),
    ]
    assert not any(torch.equal(first["image"], other["image"]) for other in others)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_loss_of_a_mix_is_that_of_both_samples_with_their_weights(activation, n_classes):
    loss = BinaryCrossEntropy(pos_weight=2.0) if activation == "sigmoid" else CrossEntropy()
    objective = Objective(loss, activation=activation)
    given = batch(8)
    given["target"] = given["target"] % n_classes
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 0.0, 0.3, 1.0])
    mixing = Mixing(mixup=1.0)
    mixed = mixing({**given, "weight": weight}, **{**KEY, "n_classes": n_classes})
    draw = mixing.draw(8, size=16, key=(2, 5, 0))
    logits = torch.randn(8, objective.n_logits(n_classes))
    total = 0.0
    for i, (j, lam) in enumerate(zip(draw.partner, draw.share, strict=True)):
        for k, part in ((i, lam), (j, 1 - lam)):
            total += part * weight[k] * objective(logits[i : i + 1], given["target"][k : k + 1])
    expected = total / mixed["weight"].sum()
    assert torch.allclose(objective(logits, mixed["target"], mixed["weight"]), expected, rtol=1e-4)


def test_views_share_their_mix_and_metadata_follows():
    given = batch(6)
    views = {"image": given["image"], "clinical": given["image"] + 1, "target": given["target"]}
    metadata = torch.randn(6, 4)
    mixing = Mixing(mixup=0.4, cutmix=1.0)
    mixed = mixing({**views, "metadata": metadata}, **KEY)
    apart = mixed["clinical"].int() - mixed["image"].int()
    assert apart.unique().tolist() == [1]
    draw = mixing.draw(6, size=16, key=(2, 5, 0))
    share = draw.share[:, None]
    expected = share * metadata + (1 - share) * metadata[draw.partner]
    assert torch.allclose(mixed["metadata"], expected, atol=1e-6)


def test_float_images_stay_float():
    given = batch(6)
    mixed = Mixing()({**given, "image": given["image"].float() / 255}, **KEY)
    image, _ = by_hand(Mixing(), given)
    assert mixed["image"].numpy() == pytest.approx(image / 255, abs=1e-6)


def test_a_batch_of_one_stays_as_it_is():
    given = batch(1)
    assert torch.equal(Mixing(mixup=0.4, cutmix=1)(given, **KEY)["image"], given["image"])


def test_the_last_epochs_see_images_as_they_are():
    mixing = Mixing(off_last_epochs=3)
    assert [mixing.is_on(e, epochs=10) for e in (0, 6, 7, 9)] == [True, True, False, False]
    assert mixing.is_on(1000, epochs=-1)
    assert not mixing.is_on(0, epochs=2)


@pytest.mark.parametrize(
    "options", [{"mixup": 0}, {"mixup": -1}, {"p": 1.5}, {"switch": -0.1}, {"off_last_epochs": -1}]
)
def test_values_without_a_meaning_are_refused(options):
    with pytest.raises(ConfigError, match="mixing: expected"):
        Mixing(**options)


def test_a_batch_without_images_is_refused():
    with pytest.raises(ConfigError, match="batches with images, got target, metadata"):
        Mixing()({"target": torch.zeros(2).long(), "metadata": torch.zeros(2, 3)}, **KEY)


class Steps:
    """The targets that the objective was given at each step."""

    def __init__(self, module):
        self.seen = []
        original = module.objective.forward

        def noted(logits, target, weight=None):
            if module.training:
                self.seen.append((module.current_epoch, target.clone()))
            return original(logits, target, weight)

        module.objective.forward = noted


def trained(data, folder, *, epochs, mixing, ckpt=None):
    """Train, leave `<epochs>.ckpt`, and tell the targets of every step."""
    torch.manual_seed(0)
    module = SingleImageClassifier(TINY, pretrained=False, image_size=32, mixing=mixing)
    steps = Steps(module)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=2,
        limit_val_batches=0,
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=False)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return steps.seen


def test_training_mixes_until_the_last_epochs_and_a_resumed_one_mixes_the_same(data32, tmp_path):
    mixing = Mixing(mixup=1.0, off_last_epochs=1)
    seen = trained(data32(batch_size=12), tmp_path, epochs=3, mixing=mixing)
    assert [e for e, _ in seen] == [0, 0, 1, 1, 2, 2]
    assert all(target.shape == (12, 2) for e, target in seen if e < 2)
    assert all(target.shape == (12,) for e, target in seen if e == 2)
    mixed = torch.stack([target[:, 1] for e, target in seen if e < 2])
    assert ((mixed > 0) & (mixed < 1)).any()
    always = Mixing(mixup=1.0)
    whole = trained(data32(batch_size=12), tmp_path, epochs=2, mixing=always)
    trained(data32(batch_size=12), tmp_path, epochs=1, mixing=always)
    rest = trained(
        data32(batch_size=12), tmp_path, epochs=2, mixing=always, ckpt=tmp_path / "1.ckpt"
    )
    assert [e for e, _ in rest] == [1, 1]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(whole[2:], rest, strict=True))


def test_the_objective_of_a_mixed_batch_is_the_loss_of_its_shares(data32):
    module = SingleImageClassifier(TINY, pretrained=False, image_size=32).eval()
    given = next(iter(data32(batch_size=12).train_dataloader()))
    mixed = Mixing(mixup=1.0)(given, n_classes=2, epoch=0, index=0)
    logits = module.network(mixed)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], mixed["target"][:, 1])
    assert torch.allclose(module.objective(logits, mixed["target"]), expected)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_view_is_mixed_where_both_samples_have_it(kind):
    mixing = Mixing(**{"mixup": 0.0, "cutmix": 0.0, kind: 1.0})
    given = batch()
    n = len(given["image"])
    has = torch.arange(n) % 3 > 0
    clinical = torch.where(has[:, None, None, None], given["image"] + 50, 0)
    views = {"image": given["image"], "has_dermoscopic": torch.ones(n, dtype=torch.bool)}
    views |= {"image_clinical": clinical, "has_clinical": has}
    mixed = mixing({**views, "target": given["target"]}, **KEY)
    plain = mixing(given, **KEY)
    assert torch.equal(mixed["image"], plain["image"])
    assert torch.equal(mixed["target"], plain["target"])
    assert torch.equal(mixed["has_clinical"], has)
    both = has & has[mixing.draw(n, size=16, key=(2, 5, 0)).partner]
    assert torch.equal(mixed["image_clinical"][~both], clinical[~both])
    assert torch.equal(mixed["image_clinical"][both], (plain["image"] + 50)[both])
