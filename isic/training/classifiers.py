"""The classifiers by name, for a notebook: `SingleImageClassifier("resnet18")`.

They only fix which network a `LesionClassifier` trains.
Trap: metadata is encoded by the data module, so that a classifier of it wants that one's encoder.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from isic.index.metadata import MetadataEncoder
from isic.models.fusion import FusionOptions
from isic.models.network import LesionNetwork
from isic.training.epoch_metric import Metric
from isic.training.losses import BinaryCrossEntropy, Objective
from isic.training.mixing import Mixing
from isic.training.module import LesionClassifier
from isic.training.optim import WarmupCosine
from isic.training.unfreeze import Finetune


class SingleImageClassifier(LesionClassifier):
    """One image in, one diagnosis out: a timm backbone by name, every other argument as above."""

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        classes: Sequence[str] = ("benign", "malignant"),
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
        finetune: Finetune | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        network = LesionNetwork(
            backbone,
            n_logits=objective.n_logits(len(classes)),
            pretrained=pretrained,
            image_size=image_size,
        )
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
            finetune=finetune,
        )


class DualImageClassifier(LesionClassifier):
    """Two views of a lesion in, one diagnosis out; some rows may lack either.

    views: As the data module's, the one that `image` holds first.
    fusion: `concat`, `gated` or options, see `isic.models.fusion.FusionOptions`.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        views: Sequence[str] = ("dermoscopic", "clinical"),
        classes: Sequence[str] = ("benign", "malignant"),
        fusion: str | Mapping[str, Any] | FusionOptions = "concat",
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
        finetune: Finetune | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        n_logits = objective.n_logits(len(classes))
        build = partial(LesionNetwork, backbone, n_logits=n_logits, views=views, fusion=fusion)
        network = build(pretrained=pretrained, image_size=image_size)
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
            finetune=finetune,
        )


class ImageTabularClassifier(LesionClassifier):
    """Images and metadata in, one diagnosis out.

    encoder: The data module's, `data.encoder`; it travels in the checkpoint.
    views: As the data module's; fewer than two is one image.
    fusion: As above.
    """

    def __init__(
        self,
        backbone: str = "tf_efficientnetv2_s.in21k_ft_in1k",
        *,
        encoder: MetadataEncoder,
        views: Sequence[str] = (),
        classes: Sequence[str] = ("benign", "malignant"),
        fusion: str | Mapping[str, Any] | FusionOptions = "concat",
        pretrained: bool | str = True,
        image_size: int | None = None,
        objective: Objective | None = None,
        optim: WarmupCosine | None = None,
        metrics: Mapping[str, Metric] | None = None,
        mixing: Mixing | None = None,
        finetune: Finetune | None = None,
    ) -> None:
        objective = objective or Objective(BinaryCrossEntropy(), activation="sigmoid")
        n_logits = objective.n_logits(len(classes))
        build = partial(LesionNetwork, backbone, n_logits=n_logits, views=views, fusion=fusion)
        network = build(pretrained=pretrained, image_size=image_size, metadata=encoder.layout)
        super().__init__(
            network,
            classes=classes,
            objective=objective,
            optim=optim,
            metrics=metrics,
            mixing=mixing,
            finetune=finetune,
            record={"metadata": encoder.to_dict()},
        )
