"""The eight views of a square, and the mean of their probabilities."""

import torch

from isic.training.losses import probabilities
from isic.training.tta import averaged_logits, d4_views


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
