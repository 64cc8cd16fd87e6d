"""The network every archive shares: normalise on the device, encode, fuse, dropout, linear head."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isic.models.backbone import create_backbone, input_spec, n_features
from isic.models.fusion import (
    EMBEDDED,
    AveragedDropout,
    Concat,
    FusionOptions,
    Gated,
    MetadataBranch,
    StandIns,
)
from isic.models.hf import self_contained


class LesionNetwork(nn.Module):
    """One image, several views of a lesion, metadata, or all of them -> logits (B, n_logits).

    `forward(batch)` reads `image` (B, 3, H, W), of the first view; `image_<view>` of each other
    view; `has_<view>` bool (B,) of any view, where some rows lack it; `metadata` float32 (B, M).
    uint8 images are normalised here; float images are taken as they are.

    pretrained: Of every view's encoder.
    dropout_samples: Dropouts whose logits are averaged in training; winners use 5 at 0.5.
    mean, std: Of RGB in 0..1; default those the backbone was trained with.
    views: Of a sample, the one that `image` shows first; fewer than two is one image.
    metadata: Layout of its columns, see `MetadataBranch`; None reads no metadata.
    fusion: `concat`, `gated`, or options of `FusionOptions`.
    n_auxiliary: Outputs of the extra heads; made in training alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        *,
        n_logits: int,
        pretrained: bool | str = True,
        image_size: int | None = None,
        dropout: float = 0.0,
        dropout_samples: int = 1,
        drop_path: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        views: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        fusion: str | Mapping[str, Any] | FusionOptions = "concat",
        n_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        spec = input_spec(backbone, weights=pretrained)
        options = FusionOptions.of(fusion)
        self.image_size = image_size or spec.size
        self.views = tuple(views) if len(views) > 1 else ()
        # all that `load` needs to build the same network again, without the weights it began with
        self.arguments: dict[str, Any] = {
            "backbone": self_contained(backbone),
            "n_logits": n_logits,
            "image_size": self.image_size,
            "dropout": dropout,
            "dropout_samples": dropout_samples,
            "drop_path": drop_path,
            "mean": list(mean or spec.mean),
            "std": list(std or spec.std),
            "views": list(self.views),
            "metadata": plain_layout(metadata) if metadata else None,
            "fusion": options.to_dict(),
            "n_auxiliary": n_auxiliary,
        }
        build = partial(create_backbone, backbone, pretrained=pretrained, drop_path=drop_path)
        for name in ("mean", "std"):  # 1x1x1 per channel, in units of uint8
            value = 255 * torch.tensor(self.arguments[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        width = self._fused(self._encoded(build, options), options)
        self.dropout = AveragedDropout(dropout, dropout_samples)
        self.head = nn.Linear(width, n_logits)
        if n_auxiliary:  # last: the same seed makes the same network without them
            self.auxiliary = nn.Linear(width, n_auxiliary)

    def _encoded(self, build: Callable[..., nn.Module], options: FusionOptions) -> list[int]:
        """Make the encoders; the width of each view's features."""
        # of the first view, or of all where it is shared
        self.backbone = build(image_size=self.image_size)
        name = self.arguments["backbone"]
        width = n_features(self.backbone, name=name, image_size=self.image_size)
        if self.views:
            separate = () if options.shared else self.views[1:]
            self.others = nn.ModuleDict(
                {view: build(image_size=self.image_size) for view in separate}
            )
            self.stand_ins = StandIns(len(self.views), width, rate=options.view_drop)
        return [width] * max(len(self.views), 1)

    def _fused(self, widths: list[int], options: FusionOptions) -> int:
        """Make what joins the streams, if there are several; the width of what comes out."""
        if layout := self.arguments["metadata"]:
            self.metadata = MetadataBranch(layout, rate=options.metadata_drop)
            widths = [*widths, EMBEDDED]
        if len(widths) == 1:
            return widths[0]
        gated = options.kind == "gated"
        self.fusion = Gated(widths, width=options.width) if gated else Concat(widths)
        return self.fusion.n_features

    def forward(self, batch: Mapping[str, Tensor], *, auxiliary: bool = False) -> Tensor:
        """Logits (B, n_logits); with `auxiliary`, behind them what the extra heads say."""
        streams = self._views(batch) if self.views else [self.backbone(self._input(batch["image"]))]
        # bfloat16 knows 256 steps between two powers of two: logits of many rows would tie
        with torch.autocast(streams[0].device.type, enabled=False):
            streams = [features.to(self.head.weight.dtype) for features in streams]  # (B, F) each
            if self.views:
                streams = self.stand_ins(streams, self._has(batch))
            if self.arguments["metadata"]:
                streams.append(self.metadata(batch["metadata"].to(self.head.weight.dtype)))
            features = self.fusion(streams) if len(streams) > 1 else streams[0]
            features = self.dropout(features)
            if auxiliary:
                return torch.cat([self.head(features), self.auxiliary(features)], dim=1)
            return torch.as_tensor(self.head(features))

    def example(self) -> dict[str, Tensor]:
        """A batch of one black image a view, and of metadata of which nothing is known."""
        size = (1, 3, self.image_size, self.image_size)
        black = torch.zeros(size, dtype=torch.uint8, device=self.mean.device)
        batch = dict.fromkeys(self._keys(), black)
        if self.arguments["metadata"]:
            batch["metadata"] = self.metadata.absent[None].clone()
        return batch

    def _keys(self) -> list[str]:
        return ["image", *(f"image_{view}" for view in self.views[1:])]

    def _input(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std if image.dtype == torch.uint8 else image

    def _has(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Which row has which view, bool (B, V)."""
        every = torch.ones(len(batch["image"]), dtype=torch.bool, device=batch["image"].device)
        return torch.stack([batch.get(f"has_{view}", every) for view in self.views], dim=1)

    def _views(self, batch: Mapping[str, Tensor]) -> list[Tensor]:
        """Features (B, F) of each view; undefined where a row lacks it.

        A shared encoder sees all views in one batch: apart, each would be normalised by its own
        statistics in training and by the mean of both afterwards.
        """
        images = [batch[key] for key in self._keys()]
        rows = [self._present(batch.get(f"has_{view}")) for view in self.views]
        parts = [x if r is None else x[r] for x, r in zip(images, rows, strict=True)]
        if self.others:
            encoders = [self.backbone, *(self.others[view] for view in self.views[1:])]
            found = [e(self._input(part)) for e, part in zip(encoders, parts, strict=True)]
        else:
            encoded = self.backbone(self._input(torch.cat(parts)))
            found = list(encoded.split([len(part) for part in parts]))
        return [
            x if r is None else x.new_zeros(len(images[0]), x.shape[1]).index_copy(0, r, x)
            for x, r in zip(found, rows, strict=True)
        ]

    def _present(self, has: Tensor | None) -> Tensor | None:
        """Rows that have a view, None for all: blanks would bend the statistics of batch norms.

        All are encoded where fewer than two have it: one row is no batch to a batch norm, and
        several devices wait for a gradient of every parameter.
        """
        if has is None or bool(has.all()):
            return None
        rows = has.nonzero().squeeze(1)
        return rows if len(rows) > 1 else None


def plain_layout(layout: Mapping[str, Any]) -> dict[str, Any]:
    """A metadata layout as plain lists: safe in a checkpoint read with `weights_only=True`."""
    groups = {str(name): [int(i) for i in ids] for name, ids in layout["groups"].items()}
    return {"groups": groups, "absent": [float(value) for value in layout["absent"]]}
