"""Views of a square, turned and cropped, and the mean of their probabilities."""

import pytest
import torch

from isic.errors import ConfigError
from isic.training.losses import probabilities
from isic.training.tta import averaged_logits, crop_views, d4_views, loaded_size, views_of


def symmetries(square):
    """The eight symmetries, the slow way: quarter turns of the square and of its mirror image."""
    return [torch.rot90(s, k, (2, 3)) for s in (square, square.flip(3)) for k in range(4)]


def test_views_are_the_eight_symmetries():
    square = torch.arange(3 * 5 * 5).reshape(1, 3, 5, 5)
    views = [v.contiguous() for v in d4_views(square)]
    assert torch.equal(views[0], square)
    assert len(views) == len({v.numpy().tobytes() for v in views}) == 8
    assert {v.numpy().tobytes() for v in views} == {
        s.contiguous().numpy().tobytes() for s in symmetries(square)
    }


def corner(n_logits):
    """A network that tells the views apart: it reads what lies in one corner."""
    weights = torch.linspace(-2, 2, 3 * n_logits).reshape(3, n_logits)
    return lambda batch: batch["image"][:, :, 0, 1] @ weights


def test_the_mean_is_of_probabilities():
    image = torch.randn(6, 3, 4, 4)
    for activation, n_logits in (("sigmoid", 1), ("sigmoid", 4), ("softmax", 3)):
        network = corner(n_logits)
        logits = averaged_logits(network, {"image": image}, activation)
        each = [probabilities(network({"image": v}), activation) for v in d4_views(image)]
        assert torch.allclose(probabilities(logits, activation), torch.stack(each).mean(0))
        assert logits.dtype == torch.float64


def test_sure_networks_still_rank():
    def sure(batch):
        return batch["image"][:, 0, 0, :1]

    image = torch.tensor([38.0, 40.0, 45.0])[:, None, None, None].expand(3, 3, 2, 2)
    logits = averaged_logits(sure, {"image": image}, "sigmoid")
    assert torch.isfinite(logits).all()
    assert (logits[:, 0].diff() > 0).all()


def test_other_inputs_reach_every_view():
    seen = []

    def network(batch):
        seen.append(batch["row"])
        return batch["image"].mean((1, 2, 3))[:, None]

    averaged_logits(network, {"image": torch.ones(2, 3, 2, 2), "row": "rows"}, "sigmoid")
    assert seen == ["rows"] * 8


def test_images_of_all_views_are_turned_alike():
    image = torch.randn(2, 3, 4, 4)
    seen = []

    def network(batch):
        assert torch.equal(batch["image"], -batch["image_clinical"])
        assert torch.equal(batch["metadata"], known)
        seen.append(batch["image"].contiguous().numpy().tobytes())
        return batch["image"].mean((1, 2, 3))[:, None]

    known = torch.randn(2, 5)
    averaged_logits(
        network, {"image": image, "image_clinical": -image, "metadata": known}, "sigmoid"
    )
    assert len(set(seen)) == 8


def test_crops_go_from_edge_to_edge_in_order():
    image = torch.arange(10)[:, None] * 10 + torch.arange(10)  # row and column of each pixel
    crops = list(crop_views(image.expand(2, 3, 10, 10), 7))
    assert [int(c[0, 0, 0, 0]) for c in crops] == [0, 2, 3, 20, 22, 23, 30, 32, 33]
    assert {tuple(c.shape) for c in crops} == {(2, 3, 7, 7)}
    assert int(crops[-1].max()) == 99
    with pytest.raises(ValueError, match="larger images, got 10"):
        next(crop_views(image.expand(2, 3, 10, 10), 11))


def test_an_image_of_the_networks_size_has_nine_equal_crops():
    image = torch.randn(1, 3, 6, 6)
    assert all(torch.equal(c, image) for c in crop_views(image, 6))
    assert len(list(crop_views(image, 6))) == 9


@pytest.mark.parametrize(("name", "n_views"), [("d4", 8), ("multicrop", 9), ("d4_multicrop", 72)])
def test_named_views_have_the_networks_size(name, n_views):
    size = loaded_size(name, 20)
    assert size == (20 if name == "d4" else 23)
    views = views_of(name, 20)
    assert views is not None
    image = torch.randn(2, 3, size, size)
    found = list(views(image))
    assert len(found) == len({v.contiguous().numpy().tobytes() for v in found}) == n_views
    assert {tuple(v.shape) for v in found} == {(2, 3, 20, 20)}


def test_other_names_are_refused():
    assert views_of("none", 20) is None
    assert loaded_size("none", 20) == 20
    with pytest.raises(ConfigError, match="tta: expected none or d4 or multicrop"):
        views_of("ten", 20)


def test_both_images_of_a_lesion_are_cut_alike():
    image, sums = torch.randn(2, 3, 23, 23), []

    def network(batch):
        assert torch.equal(batch["image"], -batch["image_clinical"])
        sums.append(float(batch["image"].sum()))
        return batch["image"].mean((1, 2, 3))[:, None]

    batch = {"image": image, "image_clinical": -image}
    logits = averaged_logits(network, batch, "sigmoid", views_of("multicrop", 20))
    each = [probabilities(c.mean((1, 2, 3))[:, None], "sigmoid") for c in crop_views(image, 20)]
    assert torch.allclose(probabilities(logits, "sigmoid"), torch.stack(each).mean(0))
    assert len(set(sums)) == 9


def test_the_energy_of_a_softmax_is_the_mean_of_the_views():
    image, network = torch.randn(6, 3, 4, 4), corner(3)
    logits = averaged_logits(network, {"image": image}, "softmax")
    each = [network({"image": v}).double().logsumexp(1) for v in d4_views(image)]
    assert torch.allclose(logits.logsumexp(1), torch.stack(each).mean(0))


@pytest.mark.parametrize("name", ["d4", "multicrop", "d4_multicrop"])
def test_views_lie_in_memory_as_their_batch_does(name):
    """Convolutions would else change to slower kernels, half of d4's views long."""
    image = torch.arange(2 * 3 * 9 * 9).reshape(2, 3, 9, 9)
    views = views_of(name, 9 if name == "d4" else 7)
    seen = []

    def network(batch):
        seen.append(batch["image"])
        return batch["image"].double().mean((1, 2, 3))[:, None]

    for layout in (torch.contiguous_format, torch.channels_last):
        seen.clear()
        batch = {"image": image.contiguous(memory_format=layout)}
        averaged_logits(network, batch, "sigmoid", views)
        assert all(x.is_contiguous(memory_format=layout) for x in seen)
        assert all(torch.equal(x, v) for x, v in zip(seen, views(image), strict=True))
