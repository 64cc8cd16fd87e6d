"""What a run is trained on: device, number of processes, precision, memory layout."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from isic.errors import ConfigError

ACCELERATORS = ("auto", "cpu", "gpu")
PRECISIONS = ("auto", "32", "16-mixed", "bf16-mixed", "64")


@dataclass(frozen=True)
class TrainerOptions:
    """The keys of conf/trainer; `resolve` turns each `auto` into a fact.

    devices: Number of processes on this machine, or `auto` for every GPU.
    precision: Lightning's names; `auto` is bf16 where the GPU has it, else fp16 with a scaler,
        and float32 on a CPU. Products in float32 on a GPU are TF32's, as cuDNN's convolutions are.
    channels_last: Memory layout of images and convolutions; the loader's batches have it already.
    deterministic: `auto` is `warn` on a CPU, where it costs nothing, and False on a GPU, where
        cuDNN then takes the kernels that are the fastest when it tries them.
    sync_batchnorm: Batch statistics over all GPUs; for small batches a device.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    precision: str = "auto"
    max_epochs: int = 10
    gradient_clip_val: float | None = 1.0
    accumulate_grad_batches: int = 1
    sync_batchnorm: bool = False
    channels_last: bool | str = "auto"
    compile: bool = False
    deterministic: bool | str = "auto"
    check_val_every_n_epoch: int = 1
    limit_train_batches: int | float = 1.0
    limit_val_batches: int | float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that would quietly mean something else."""
        if self.accelerator not in ACCELERATORS:
            raise ConfigError(
                f"trainer.accelerator: expected one of {', '.join(ACCELERATORS)}, "
                f"got {self.accelerator!r}"
            )
        if self.devices != "auto" and not (str(self.devices).isdecimal() and int(self.devices)):
            raise ConfigError(
                f"trainer.devices: expected a number of processes or auto, got {self.devices!r}"
            )
        if self.max_epochs < 1 or self.check_val_every_n_epoch < 1:
            raise ConfigError(
                "trainer: expected max_epochs and check_val_every_n_epoch of at least 1, got "
                f"{self.max_epochs} and {self.check_val_every_n_epoch}"
            )
        if str(self.precision) not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision: expected one of {', '.join(PRECISIONS)}, "
                f"got {self.precision!r}. Weights themselves in half precision lose what an "
                "average or a small step adds; bf16-mixed keeps them in float32."
            )
        if self.sync_batchnorm and not self.on_gpu:
            raise ConfigError("trainer.sync_batchnorm: expected GPUs; batch norm on a CPU has none")

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is used; asking for one that is not there is an error."""
        available = torch.cuda.is_available()
        if self.accelerator == "gpu" and not available:
            raise ConfigError(
                "trainer.accelerator: expected a CUDA device, found none "
                f"(torch {torch.__version__}). Use trainer=auto or trainer=cpu."
            )
        return available and self.accelerator in ("auto", "gpu")

    @property
    def n_devices(self) -> int:
        """Processes on this machine."""
        if self.devices == "auto":
            return torch.cuda.device_count() if self.on_gpu else 1
        wanted = int(self.devices)
        if self.on_gpu and wanted > torch.cuda.device_count():
            raise ConfigError(
                f"trainer.devices: {wanted} GPUs asked for, {torch.cuda.device_count()} found"
            )
        return wanted

    @property
    def resolved_precision(self) -> str:
        """Lightning's name of the precision."""
        if self.precision != "auto":
            return str(self.precision)
        if not self.on_gpu:
            return "32"
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "16-mixed"

    @property
    def resolved_deterministic(self) -> bool | str:
        """Lightning's `deterministic`."""
        if self.deterministic != "auto":
            return self.deterministic
        return False if self.on_gpu else "warn"

    def trainer_arguments(self, *, freezes: bool = False) -> dict[str, Any]:
        """Keyword arguments of `pytorch_lightning.Trainer`.

        freezes: Whether parameters come and go between epochs: several devices then look at each
            step for those without a gradient, instead of waiting for it.
        """
        from pytorch_lightning.strategies import DDPStrategy

        world = self.n_devices * self.num_nodes
        strategy: Any = "auto"
        if world > 1:
            backend = self.backend
            strategy = DDPStrategy(process_group_backend=backend, find_unused_parameters=freezes)
        return {
            "accelerator": "gpu" if self.on_gpu else "cpu",
            "devices": self.n_devices,
            "num_nodes": self.num_nodes,
            "strategy": strategy,
            "precision": self.resolved_precision,
            "max_epochs": self.max_epochs,
            "gradient_clip_val": self.gradient_clip_val,
            "accumulate_grad_batches": self.accumulate_grad_batches,
            "deterministic": self.resolved_deterministic,
            "benchmark": self.on_gpu and self.resolved_deterministic is False,
            "check_val_every_n_epoch": self.check_val_every_n_epoch,
            "limit_train_batches": self.limit_train_batches,
            "limit_val_batches": self.limit_val_batches,
            "use_distributed_sampler": False,
        }

    def set_matmul_precision(self) -> None:
        """Let a GPU multiply float32 in TF32, of 10 bits and a sum in float32; for all of torch."""
        if self.on_gpu:
            torch.set_float32_matmul_precision("high")

    def lay_out(self, network: nn.Module) -> None:
        """Convolutions in the memory layout of the loader's batches, in place."""
        if self.channels_last in (True, "auto"):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def backend(self) -> str:
        """Process-group backend of DDP."""
        return "nccl" if self.on_gpu else "gloo"

    def describe(self) -> str:
        """`1 x NVIDIA A100 (bf16-mixed)`."""
        name = torch.cuda.get_device_name() if self.on_gpu else "CPU"
        return f"{self.n_devices * self.num_nodes} x {name} ({self.resolved_precision})"


def synchronised(network: nn.Module) -> nn.Module:
    """Batch norms that share their statistics over the ranks.

    They see for themselves whether there are several; alone they are plain ones, bit for bit. Who
    started the ranks is not asked: srun leaves no WORLD_SIZE.
    timm's converter, not torch's, which Lightning uses: that one drops the activations that timm
    keeps inside its batch norms, without a word.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted
