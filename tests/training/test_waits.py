"""Nothing in a step waits for a GPU: shown on the CPU by what is copied, and by what is asked."""

from collections import Counter

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from isic.models.network import LesionNetwork
from isic.training.losses import BinaryCrossEntropy, CrossEntropy, Objective, one_hot
from tests.archives import TINY

META = torch.device("meta")  # a device that every machine has, and that is not the CPU
ASKED = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")


class Lists(TorchFunctionMode):
    """Counts lists that are made into tensors, which no dispatch shows."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            given = arguments[function is torch.Tensor.new_tensor]
            self.seen[function.__name__] += not isinstance(given, torch.Tensor)
        return function(*arguments, **(options or {}))


class Waits(TorchDispatchMode):
    """Counts what makes a process wait for its device: copies to it, and questions."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()
        self.lists = Lists(self.seen)

    def __enter__(self):
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self.lists.__exit__(*raised)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        name = function.overloadpacket.__name__
        given = arguments[0] if arguments and isinstance(arguments[0], torch.Tensor) else None
        copied = given is not None and getattr(result, "device", given.device) != given.device
        if copied or name in ASKED:
            self.seen[name] += 1
        return result


OBJECTIVES = {
    "bce": (BinaryCrossEntropy(), "sigmoid"),
    "weighted bce": (BinaryCrossEntropy(pos_weight="balanced", label_smoothing=0.1), "sigmoid"),
    "balanced ce": (CrossEntropy(balance="sqrt"), "softmax"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_copies_its_numbers_to_a_device_once(name):
    loss, activation = OBJECTIVES[name]
    objective = Objective(loss, activation=activation)
    logits = torch.zeros(8, 3, device=META)
    target = torch.zeros(8, dtype=torch.long, device=META)
    for counts in ([10, 20, 30], [5, 5, 20]):
        objective.balance(counts)
        objective(logits, target)
        with Waits() as waits:
            objective(logits, target)
            objective(logits, one_hot(target, 3).float())
        assert not +waits.seen


def test_a_plain_loss_copies_nothing_at_all():
    with Waits() as waits:
        Objective(BinaryCrossEntropy(), activation="sigmoid")(
            torch.zeros(8, 1, device=META), torch.zeros(8, dtype=torch.long, device=META)
        )
    assert not +waits.seen


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_every_bit_of_the_loss_and_its_gradient_stays(weight):
    """What `new_tensor` in each step gave, also of mixed and smoothed labels."""
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for seed, target in enumerate((torch.rand(500, 3), torch.eye(3).repeat(167, 1)[:500])):
        loss = BinaryCrossEntropy(pos_weight=weight, label_smoothing=0.1 * seed)
        positive = target * logits.new_tensor([weight])
        each = positive + (1 - target)
        soft = positive / each * (1 - 0.1 * seed) + 0.1 * seed / 2
        expected = functional.binary_cross_entropy_with_logits(logits, soft, weight=each)
        assert torch.equal(loss(logits, target), expected)
        ours, theirs = (torch.autograd.grad(x, logits) for x in (loss(logits, target), expected))
        assert torch.equal(ours[0], theirs[0])


def test_numbers_made_while_validating_take_part_in_training():
    objective = Objective(CrossEntropy(balance="inverse"), activation="softmax")
    objective.balance([7, 5, 3])
    target = torch.tensor([0, 1, 2, 0])
    with torch.inference_mode():
        objective(torch.zeros(4, 3, dtype=torch.float64), target)
    logits = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    objective(logits, target).backward()
    assert logits.grad.any()


def of_views(*, lacking):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    has = torch.ones(4, dtype=torch.bool)
    has[:lacking] = False
    one = {"image": images[0], "has_dermoscopic": torch.ones(4, dtype=torch.bool)}
    return {**one, "image_clinical": images[1], "has_clinical": has}


def test_two_views_ask_nothing_where_every_row_has_both(data32):
    network = LesionNetwork(
        TINY, n_logits=2, pretrained=False, image_size=32, views=("dermoscopic", "clinical")
    ).eval()
    data, batch = data32(), of_views(lacking=0)
    sent = data.on_before_batch_transfer(batch, 0)
    assert set(batch) - set(sent) == {"has_dermoscopic", "has_clinical"}
    with Waits() as waits:
        logits = network(sent)
    assert not +waits.seen
    assert torch.equal(logits, network(batch))
    lacks = of_views(lacking=1)
    assert data.on_before_batch_transfer(lacks, 0).keys() == lacks.keys()
