"""Staged fine-tuning: which parameters learn in which epoch, and how fast each layer does.

What is new (head, fusion, metadata branch) learns from the first epoch on; the pretrained encoders
may wait, be taken in by depth, or learn more slowly the nearer a layer is to the image.
Depth is timm's own (`group_matcher`); a layer is a block of a transformer, and a stage of what is
convolutional: its blocks are many and thin, and a decay made for 12 blocks leaves the stem of 40 a
rate of 2e-8. An encoder without one is cut at the numbered list that holds
most of its parameters: what stands before it is the stem, what after it goes with the last element.
Sources: layer-wise decay of BEiT (arXiv 2106.08254), 0.65 in PanDerm's fine-tuning; gradual
unfreezing from ULMFiT (arXiv 1801.06146).
Trap: a frozen layer must also stand still: batch norms would go on averaging and dropout would go
on drawing, so that it is in evaluation mode. An optimizer leaves out what has no gradient, which
keeps weight decay away. DDP waits for every gradient it once saw: it has to look for unused ones.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from isic.errors import ConfigError

log = logging.getLogger(__name__)

NUMBERED = re.compile(r"(.*?)(?:^|\.)(\d+)\.")
HEAD = "head-after-the-encoder"  # a name that no encoder has


@dataclass(frozen=True)
class Finetune:
    """The keys of conf/finetune.

    head_epochs: Epochs in which nothing but what is new learns.
    group_epochs: After them, epochs before each further group of the encoder is taken in, the last
        layers first; 0 takes in the whole encoder at once.
    groups: Groups of equally many stages (of a vision transformer, blocks); fewer where it has
        fewer.
    layer_decay: Learning rate of a layer as a share of the next one's; 1 for the same everywhere.
        A layer is a block of a transformer, a stage of a convolutional network.
    """

    head_epochs: int = 0
    group_epochs: int = 0
    groups: int = 4
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        for key, least in (("head_epochs", 0), ("group_epochs", 0), ("groups", 1)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"finetune.{key}: expected a whole number from {least} on, got {value!r}"
                )
        if not isinstance(self.layer_decay, int | float) or not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f"finetune.layer_decay: expected a number in (0, 1], got {self.layer_decay!r}"
            )

    @property
    def freezes(self) -> bool:
        """Whether there are epochs in which a part of the network does not learn."""
        return self.head_epochs > 0 or self.group_epochs > 0

    def n_learning(self, epoch: int, *, n_groups: int) -> int:
        """How many groups of the encoder learn in an epoch, counted from 0: the last so many."""
        if epoch < self.head_epochs:
            return 0
        if not self.group_epochs:
            return n_groups
        return min(1 + (epoch - self.head_epochs) // self.group_epochs, n_groups)


class Stages:
    """The stages of one network under `Finetune`; nothing but the epoch decides which one is on.

    Names of parameters are kept, not parameters: synchronised batch norms take their places later.
    What the network itself had frozen, such as unused layers of a Hugging Face model, stays so.

    Raises:
        ConfigError: A network without an encoder named `backbone`.
    """

    def __init__(self, network: nn.Module, options: Finetune) -> None:
        self.options = options
        self.n_groups = 1
        self.group: dict[str, int] = {}  # of every parameter of an encoder; 0 is the stem's
        self.scale: dict[str, float] = {}  # of the learning rate; what is not in it has 1
        self._learns = {name for name, p in network.named_parameters() if p.requires_grad}
        self._said: int | None = None
        for prefix, encoder in encoders(network).items():
            stages, n_stages = layers(encoder, coarse=True)
            depth, head = (stages, n_stages) if is_convolutional(encoder) else layers(encoder)
            self.n_groups = min(options.groups, n_stages)
            for name in stages:
                stage = min(stages[name], n_stages - 1)
                self.group[f"{prefix}.{name}"] = stage * self.n_groups // n_stages
                self.scale[f"{prefix}.{name}"] = options.layer_decay ** (head - depth[name])
        if options.layer_decay < 1:
            least = min(self.scale.values(), default=1.0)
            log.info("finetune: layers learn at %.1e to 1 times the learning rate", least)

    def frozen(self, epoch: int) -> set[str]:
        """Names of the encoders' parameters that do not learn in this epoch."""
        waiting = self.n_groups - self.options.n_learning(epoch, n_groups=self.n_groups)
        return {name for name, group in self.group.items() if group < waiting}

    def begin(self, network: nn.Module, epoch: int, *, epochs: int) -> None:
        """Freeze and thaw for an epoch; says so where it differs from the one before."""
        if not self.options.freezes:
            return
        frozen = self.frozen(epoch)
        _freeze(network, self._learns, frozen)
        for prefix, encoder in encoders(network).items():
            encoder.train()
            _hold_still(encoder, prefix, frozen)
        learning = self.options.n_learning(epoch, n_groups=self.n_groups)
        if learning != self._said:
            if self._said is not None and getattr(network, "_compiled_call_impl", None):
                torch.compiler.reset()  # else the graphs of past stages use up dynamo's limit
            self._said = learning
            self._say(network, learning, epoch=epoch, epochs=epochs)

    def release(self, network: nn.Module) -> None:
        """Undo every stage: before optimizer and DDP look for what may learn."""
        _freeze(network, self._learns, set())
        self._said = None

    def _say(self, network: nn.Module, learning: int, *, epoch: int, epochs: int) -> None:
        every = sum(p.numel() for p in network.parameters())
        on = sum(p.numel() for p in network.parameters() if p.requires_grad)
        part = {0: "nothing", self.n_groups: "all"}.get(
            learning, f"the last {learning} of {self.n_groups} groups"
        )
        log.info(
            "finetune: from epoch %d on the head and %s of the encoder learn, %.2f of %.2f M",
            *(epoch + 1, part, on / 1e6, every / 1e6),
        )
        if self.options.n_learning(epochs - 1, n_groups=self.n_groups) == 0 and epoch == 0:
            log.warning("finetune: in %d epochs the encoder never learns: a linear probe", epochs)


def encoders(network: nn.Module) -> dict[str, nn.Module]:
    """Name -> each pretrained part of a network: `backbone`, and `others.<view>`."""
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            "finetune: expected a network with an encoder named backbone, "
            f"{type(network).__name__} has none; set finetune=null"
        )
    others: Mapping[str, nn.Module] = dict(getattr(network, "others", None) or {})
    return {"backbone": backbone, **{f"others.{view}": other for view, other in others.items()}}


def layers(encoder: nn.Module, *, coarse: bool = False) -> tuple[dict[str, int], int]:
    """The depth of each parameter, 0 for the stem, and that of a head after the encoder.

    coarse: Whole stages of a convolutional network in place of its blocks.
    """
    matcher = getattr(encoder, "group_matcher", None)
    if matcher is None:
        return _numbered(encoder)
    from timm.models._manipulate import group_with_matcher

    named = {**dict.fromkeys(name for name, _ in encoder.named_parameters()), HEAD: None}
    found: dict[str, int] = group_with_matcher(
        iter(named.items()), matcher(coarse=coarse), reverse=True
    )
    head = max(found.pop(HEAD), 1)
    return {name: found.get(name, head) for name in named if name != HEAD}, head


def is_convolutional(encoder: nn.Module) -> bool:
    """Whether it convolves behind its stem too: a patch embedding alone makes no such network."""
    depth, _ = layers(encoder)
    return any(p.ndim == 4 and depth[name] > 0 for name, p in encoder.named_parameters())


def _numbered(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """Depths by the numbered list that holds most parameters."""
    sizes: Counter[str] = Counter()
    for name, parameter in encoder.named_parameters():
        if match := NUMBERED.match(name):
            sizes[match[1]] += parameter.numel()
    depth, found = 0, {}
    for name, _ in encoder.named_parameters():
        match = NUMBERED.match(name)
        if match and match[1] == sizes.most_common(1)[0][0]:
            depth = int(match[2]) + 1
        found[name] = depth
    return found, max(found.values(), default=0) + 1


def _freeze(network: nn.Module, learns: set[str], frozen: set[str]) -> None:
    for name, parameter in network.named_parameters():
        if name in learns:
            parameter.requires_grad_(name not in frozen)


def _hold_still(module: nn.Module, name: str, frozen: set[str]) -> None:
    """Evaluation mode for what is frozen as a whole.

    A part without parameters (dropout, pooling) does as the part before it, the first as the stem.
    """
    still = bool(frozen)
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}"
        inside = [f"{path}.{key}" for key, _ in child.named_parameters()]
        still = frozen.issuperset(inside) if inside else still
        if still:
            child.eval()
        elif inside:
            _hold_still(child, path, frozen)
    own = [f"{name}.{key}" for key, _ in module.named_parameters()]
    if own and frozen.issuperset(own):
        module.eval()
