"""The network every archive shares: normalise on the device, backbone, dropout, linear head."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isic.models.backbone import create_backbone, input_spec, n_features


class LesionNetwork(nn.Module):
    """One image -> logits.

    `forward({"image": (B, 3, H, W)}) -> (B, n_logits)`. uint8 images are normalised here; float
    images are taken as they are.

    mean, std: Of RGB in 0..1; default those the backbone was trained with.
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
        drop_path: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        spec = input_spec(backbone, weights=pretrained)
        self.image_size = image_size or spec.size
        # all that `load` needs to build the same network again, without the weights it began with
        self.arguments: dict[str, Any] = {
            "backbone": backbone,
            "n_logits": n_logits,
            "image_size": self.image_size,
            "dropout": dropout,
            "drop_path": drop_path,
            "mean": list(mean or spec.mean),
            "std": list(std or spec.std),
        }
        self.backbone = create_backbone(
            backbone, pretrained=pretrained, image_size=self.image_size, drop_path=drop_path
        )
        for name in ("mean", "std"):  # 1x1x1 per channel, in units of uint8
            value = 255 * torch.tensor(self.arguments[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(
            n_features(self.backbone, name=backbone, image_size=self.image_size), n_logits
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, n_logits)."""
        image = batch["image"]  # (B, 3, H, W)
        if image.dtype == torch.uint8:
            image = (image - self.mean) / self.std
        features = self.backbone(image)  # (B, F)
        # bfloat16 knows 256 steps between two powers of two: logits of many rows would tie
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.head.weight.dtype)
            return torch.as_tensor(self.head(self.dropout(features)))
