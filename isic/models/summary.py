"""How large a network is: parameters, and multiply-adds of one sample.

A multiply-add is what papers on image networks call a FLOP: torch counts each as two. Counted are
convolutions and matrix products, attention's included; nothing is computed, whatever the size.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(network: nn.Module, image_size: int) -> int:
    """Multiply-adds of one sample in evaluation.

    network: Of batches; one with `example()` (LesionNetwork) says what a batch holds, others get
        `{"image": uint8 (1, 3, S, S)}`.
    """
    example = getattr(network, "example", None)
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
    return count(network, example() if example else {"image": image})


def count(module: nn.Module, argument: Tensor | Mapping[str, Tensor]) -> int:
    """Multiply-adds of `module(argument)` in evaluation; runs on shapes alone."""
    training, fake = module.training, FakeTensorMode()
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state: dict[str, Tensor] = {
        name: fake.from_tensor(value.detach()) for name, value in held.items()
    }
    given = (
        fake.from_tensor(argument)
        if isinstance(argument, Tensor)
        else {key: fake.from_tensor(value) for key, value in argument.items()}
    )
    counter = FlopCounterMode(display=False)
    try:
        # attention as two matrix products: fused kernels are not counted on every device
        with fake, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
            functional_call(module.eval(), state, (given,))
    finally:
        module.train(training)
    return int(counter.get_total_flops()) // 2


def in_words(network: nn.Module, image_size: int) -> str:
    """`20.2 M parameters, 2.88 G multiply-adds`; without the latter where it cannot be counted."""
    size = sum(p.numel() for p in network.parameters())
    words = f"{size / 1e6:.2f} M parameters"
    try:
        return f"{words}, {multiply_adds(network, image_size) / 1e9:.2f} G multiply-adds"
    except Exception:  # a network that looks at values has no count without them
        return words
