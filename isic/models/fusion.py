"""The parts that join views and metadata: learned stand-ins, the metadata branch, two fusions.

Sources: the 512-128 metadata branch and the five averaged dropouts of the SIIM-ISIC 2020 winners
(arXiv 2010.05351); whole groups of metadata dropped at 0.1 in training (ISIC 2019 winners, arXiv
1910.03910); gated multimodal units (arXiv 1702.01992), here with a softmax over any number of
streams. All shapes are (B, F), float32.
Trap: what is dropped at random is drawn from torch's generator alone, which the training seeds for
each epoch: any other source of chance would end exact resumption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from isic.errors import ConfigError

KINDS = ("concat", "gated")
HIDDEN, EMBEDDED = 512, 128  # widths of the metadata branch


@dataclass(frozen=True)
class FusionOptions:
    """How the features of views and metadata become one vector.

    kind: `concat`, or `gated`: each stream projected to `width`, weighted feature by feature.
    shared: One encoder for all views instead of one each.
    view_drop: Rate at which a training sample loses one of its views.
    metadata_drop: Rate at which a training sample loses each group of metadata.
    """

    kind: str = "concat"
    shared: bool = False
    view_drop: float = 0.1
    metadata_drop: float = 0.1
    width: int = 512

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"model.fusion.kind: expected {' or '.join(KINDS)}, got {self.kind!r}"
            )
        for name in ("view_drop", "metadata_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"model.fusion.{name}: expected a rate in [0, 1), got {getattr(self, name)}"
                )

    @classmethod
    def of(cls, given: "str | Mapping[str, Any] | FusionOptions") -> "FusionOptions":
        """The options that a kind, a mapping of some of them, or an object stands for."""
        if isinstance(given, FusionOptions):
            return given
        named = {"kind": given} if isinstance(given, str) else dict(given)
        known = [f.name for f in fields(cls)]
        if unknown := [k for k in named if k not in known]:
            raise ConfigError(f"model.fusion: expected {', '.join(known)}, got {unknown[0]}")
        return cls(**named)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a checkpoint."""
        return asdict(self)


class StandIns(nn.Module):
    """A learned vector for each view, in place of the features of a view that is missing."""

    def __init__(self, n_views: int, width: int, *, rate: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(n_views, width))
        self.rate = rate

    def forward(self, features: Sequence[Tensor], has: Tensor) -> list[Tensor]:
        """Features with those of missing or dropped views replaced.

        features: Of each view, (B, F).
        has: bool (B, V).
        """
        kept = self._dropped(has) if self.training and self.rate else has
        return [
            torch.where(kept[:, i, None], stream, self.vectors[i])
            for i, stream in enumerate(features)
        ]

    def _dropped(self, has: Tensor) -> Tensor:
        """`has` without one view of some rows, never without the last one that is left."""
        rows, n_views = has.shape
        drop = torch.rand(rows, device=has.device) < self.rate
        which = torch.randint(n_views, (rows,), device=has.device)
        kept = has & ~(drop[:, None] & nn.functional.one_hot(which, n_views).bool())
        return torch.where(kept.any(dim=1, keepdim=True), kept, has)


class MetadataBranch(nn.Module):
    """Metadata (B, M) -> features (B, 128): Linear 512, batch norm, Swish, dropout 0.3, Linear 128.

    layout: `groups`, name -> positions of its columns, each column in one group; `absent`, M
        values: what a row holds of which nothing is known. `MetadataEncoder.layout` makes it.
    rate: At which each group of a training row is replaced by its part of `absent`.
    """

    absent: Tensor
    group: Tensor

    def __init__(self, layout: Mapping[str, Any], *, rate: float) -> None:
        super().__init__()
        groups, width = list(layout["groups"].values()), len(layout["absent"])
        if sorted(i for positions in groups for i in positions) != list(range(width)):
            raise ConfigError(
                f"model.metadata: expected each of {width} columns in one group, got {groups}"
            )
        group = torch.empty(width, dtype=torch.long)
        for i, positions in enumerate(groups):
            group[list(positions)] = i
        self.n_groups, self.rate = len(groups), rate
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("absent", torch.tensor(layout["absent"]).float(), persistent=False)
        self.layers = nn.Sequential(
            *(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.SiLU(), nn.Dropout(0.3)),
            *(nn.Linear(HIDDEN, EMBEDDED), nn.BatchNorm1d(EMBEDDED), nn.SiLU()),
        )

    def forward(self, metadata: Tensor) -> Tensor:
        """Features (B, 128) of encoded metadata (B, M)."""
        if self.training and len(metadata) < 2:
            raise ConfigError(
                "data.batch_size: metadata needs at least 2 rows a step and device (batch norm)"
            )
        if self.training and self.rate:
            rows = (len(metadata), self.n_groups)
            drop = torch.rand(rows, device=metadata.device) < self.rate  # (B, groups)
            metadata = torch.where(drop[:, self.group], self.absent, metadata)
        return torch.as_tensor(self.layers(metadata))


class Concat(nn.Module):
    """Streams side by side, (B, sum of widths)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.n_features = sum(widths)

    def forward(self, streams: Sequence[Tensor]) -> Tensor:
        """(B, n_features)."""
        return torch.cat(list(streams), dim=1)


class Gated(nn.Module):
    """`sum_i g_i * tanh(W_i x_i)`, the gates a softmax over streams for each feature."""

    def __init__(self, widths: Sequence[int], *, width: int) -> None:
        super().__init__()
        self.n_features = width
        self.project = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.gate = nn.Linear(sum(widths), len(widths) * width)

    def forward(self, streams: Sequence[Tensor]) -> Tensor:
        """(B, width)."""
        gates = self.gate(torch.cat(list(streams), dim=1)).unflatten(1, (len(streams), -1))
        projected = [p(x).tanh() for p, x in zip(self.project, streams, strict=True)]
        return torch.as_tensor((gates.softmax(dim=1) * torch.stack(projected, dim=1)).sum(dim=1))


class AveragedDropout(nn.Dropout):
    """The mean of several dropouts: what averaging a linear head's logits over them amounts to."""

    def __init__(self, p: float, samples: int = 1) -> None:
        super().__init__(p)
        if samples < 1:
            raise ConfigError(f"model.dropout_samples: expected at least 1, got {samples}")
        self.samples = samples

    def forward(self, features: Tensor) -> Tensor:
        """The same shape; the features themselves in evaluation."""
        if not self.training or self.samples == 1:
            return super().forward(features)
        drawn = [super(AveragedDropout, self).forward(features) for _ in range(self.samples)]
        return torch.stack(drawn).mean(dim=0)
