"""The network every archive shares: normalise on the device, backbone, dropout, linear head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isic.models.backbone import create_backbone, input_spec, n_features


class LesionNetwork(nn.Module):
    """One image -> logits.

    `forward({"image": (B, 3, H, W)}) -> (B, n_logits)`. uint8 images are normalised here, with the
    backbone's own mean and std; float images are taken as they are.
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
    ) -> None:
        super().__init__()
        spec = input_spec(backbone)
        self.image_size = image_size or spec.size
        self.arguments: dict[str, Any] = {
            "backbone": backbone,
            "n_logits": n_logits,
            "image_size": self.image_size,
            "dropout": dropout,
            "drop_path": drop_path,
        }
        self.backbone = create_backbone(
            backbone, pretrained=pretrained, image_size=self.image_size, drop_path=drop_path
        )
        # 1x1x1 per channel, in units of uint8: (image - mean) / std
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(1, 3, 1, 1), False)
        self.register_buffer("std", 255 * torch.tensor(spec.std).view(1, 3, 1, 1), False)
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
        return torch.as_tensor(self.head(self.dropout(features)))
