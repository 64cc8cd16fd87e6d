"""CancerNet-SCa: a small convolutional network with attention condensers, under a timm name.

From the papers (CancerNet-SCa, arXiv 2011.10702; TinySpeech, arXiv 2008.04245): an attention
condenser is condensation (max pooling), an embedding of the condensed activations, expansion back
to the input's size, and selective attention of the input by what comes out; it stands alone instead
of serving a convolution. Input 224 px, values 0..1. CancerNet-SCa mixes condensers with projection,
replication, projection and expansion by light convolutions.
Ours, since the layers were found by machine search and no architecture code is published: stages,
widths, depths, residual paths, batch norm and ReLU, a grouped 3x3 and a pointwise embedding,
attention by a sigmoid and one learned scale, a condenser at the end of the first three stages.

| | parameters | multiply-adds at 224 px |
|---|---|---|
| CancerNet-SCa-B, paper | 0.80 M | 0.43 G |
| CancerNet-SCa-C, paper | 1.19 M | 0.40 G |
| `cancernet_sca`, two classes | 1.00 M | 0.44 G |

Trap: the paper's 84.4 % accuracy is of 442 balanced images of its own choice, not of a challenge.
"""

from typing import Any

import torch
from timm.layers.classifier import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

STEM = 32
WIDTHS = (112, 176, 240, 320)
DEPTHS = (3, 2, 3, 2)
CONDENSED = 3  # stages that end in an attention condenser, from the first on
GROUPS = 8  # of the 3x3 embedding


def convolution(
    inside: int, outside: int, kernel: int = 1, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch norm, padded so that only the stride shrinks."""
    conv = nn.Conv2d(
        inside, outside, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class AttentionCondenser(nn.Module):
    """`x + scale * x * sigmoid(expansion(embedding(condensation(x))))`, shapes (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.embedding = nn.Sequential(
            convolution(channels, inner, 3, groups=GROUPS), nn.ReLU(), convolution(inner, inner)
        )
        self.expansion = nn.Conv2d(inner, channels, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape: each activation between once and `1 + scale` times itself."""
        condensed = F.max_pool2d(x, 2, ceil_mode=True)  # ceil: one pixel stays one
        embedded = F.relu(self.embedding(condensed))
        # nearest neighbours commute with a pointwise convolution, which is cheaper before them
        attention = F.interpolate(self.expansion(embedded), size=x.shape[-2:], mode="nearest")
        return x + self.scale * x * attention.sigmoid()


class Bottleneck(nn.Module):
    """Projection, replication (depthwise, twice the channels), projection, expansion."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        inner = outside // 2
        self.layers = nn.Sequential(
            *(convolution(inside, inner), nn.ReLU()),
            *(convolution(inner, 2 * inner, 3, stride=stride, groups=inner), nn.ReLU()),
            *(convolution(2 * inner, inner), nn.ReLU()),
            convolution(inner, outside),
        )
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inside, outside)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) -> (B, outside, H / stride, W / stride), rounded up."""
        short = F.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        return F.relu(self.layers(x) + self.shortcut(short))


class CancerNet(nn.Module):
    """Stem and four stages, each halving the side: `(B, 3, H, W) -> (B, num_classes)`.

    The methods are those that timm asks of its models.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.grad_checkpointing = False
        self.stem = nn.Sequential(convolution(in_chans, STEM, 3, stride=2), nn.ReLU())
        stages, inside = [], STEM
        for i, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks: list[nn.Module] = [Bottleneck(inside, width, stride=2)]
            blocks += [Bottleneck(width, width, stride=1) for _ in range(depth - 1)]
            if i < CONDENSED:
                blocks.append(AttentionCondenser(width))
            stages.append(nn.Sequential(*blocks))
            inside = width
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            {"num_chs": width, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, width in enumerate(WIDTHS)
        ]
        self.head = ClassifierHead(
            WIDTHS[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Activations of the last stage, (B, 320, H / 32, W / 32)."""
        return torch.as_tensor(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooled features, then logits unless `pre_logits`."""
        return torch.as_tensor(self.head(x, pre_logits=pre_logits))

    def forward(self, x: Tensor) -> Tensor:
        """Logits; pooled features where `num_classes` is 0."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        layer: nn.Module = self.head.fc
        return layer

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another last layer, of fresh weights."""
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)


default_cfgs = generate_default_cfgs(
    {
        "cancernet_sca.untrained": {
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "num_classes": 1000,
            # the paper feeds x / 255; centred values train as well and are what timm's own expect
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "first_conv": "stem.0.0",
            "classifier": "head.fc",
        }
    }
)


@register_model
def cancernet_sca(
    pretrained: bool = False,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    features_only: bool = False,
    out_indices: tuple[int, ...] = (0, 1, 2, 3),
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | None = None,
) -> nn.Module:
    """What `timm.create_model("cancernet_sca")` calls; no weights are published for it."""
    return build_model_with_cfg(
        CancerNet,
        "cancernet_sca",
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        feature_cfg={"out_indices": out_indices, "flatten_sequential": True},
        cache_dir=cache_dir,
        features_only=features_only,
        num_classes=num_classes,
        in_chans=in_chans,
        global_pool=global_pool,
        drop_rate=drop_rate,
    )
