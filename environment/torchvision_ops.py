"""Import hook: declare the two operators a CPU torch lacks beside the index's CUDA torchvision.

torchvision's compiled half is linked against CUDA, so a CPU build of torch cannot load it and
``import torchvision`` (hence timm, torchmetrics and pytorch_lightning) dies with "operator
torchvision::nms does not exist". Declared, not implemented, the operators let those imports pass.
``torchvision.ops.nms`` and the decoders of ``torchvision.io`` still raise; isic uses neither.

The trap: a fix in conftest or in the package misses DDP ranks and subprocesses. So
check_imports.py copies this file into site-packages, where every interpreter of the venv loads it.
"""

import sys
from types import ModuleType

_kept_alive: list[object] = []  # torch withdraws a library's operators when it is collected


class DeclareMissingOperators:
    """Meta-path finder that finds nothing and acts once, just before the import that would fail."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> None:
        """Declare nms and qnms when torchvision is about to register their meta kernels."""
        if name != "torchvision._meta_registrations":
            return
        sys.meta_path.remove(DeclareMissingOperators)
        import torch
        import torchvision.extension

        if not torchvision.extension._has_ops():
            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            _kept_alive.append(library)


sys.meta_path.insert(0, DeclareMissingOperators)
