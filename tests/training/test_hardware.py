"""Device, precision and processes, with GPUs that are only pretended."""

import copy

import pytest
import timm
import torch
from torch import nn

from isic.errors import ConfigError
from isic.training.hardware import TrainerOptions, synchronised


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are GPUs: their number, and whether bfloat16 is native."""

    def pretend(count, *, native=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A Card")
        # torch says yes where bfloat16 is only emulated, on a T4 for one, unless asked not to
        supported = lambda including_emulation=True: native or including_emulation  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)

    return pretend


def test_no_gpu_is_an_error_only_where_one_was_asked_for(gpus):
    gpus(0)
    with pytest.raises(ConfigError, match="found none.*trainer=auto or trainer=cpu"):
        _ = TrainerOptions(accelerator="gpu").on_gpu
    auto = TrainerOptions()
    assert not auto.on_gpu
    assert auto.resolved_precision == "32"
    assert auto.trainer_arguments()["accelerator"] == "cpu"
    assert auto.describe() == "1 x CPU (32)"


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_precision_follows_the_gpu(gpus, native, precision):
    gpus(1, native=native)
    options = TrainerOptions()
    assert options.resolved_precision == precision
    assert options.describe() == f"1 x A Card ({precision})"
    assert TrainerOptions(precision="32").resolved_precision == "32"
    assert TrainerOptions(accelerator="cpu").resolved_precision == "32"


@pytest.mark.parametrize(
    ("options", "benchmark"),
    [
        ({}, True),
        ({"deterministic": True}, False),
        ({"deterministic": "warn"}, False),
        ({"accelerator": "cpu"}, False),
    ],
)
def test_cudnn_looks_for_the_fastest_kernel_where_bits_may_differ(gpus, options, benchmark):
    gpus(1)
    assert TrainerOptions(**options).trainer_arguments()["benchmark"] is benchmark


def test_products_in_float32_are_fast_on_a_gpu_and_exact_on_a_cpu(gpus):
    before = torch.get_float32_matmul_precision()
    try:
        TrainerOptions(accelerator="cpu").set_matmul_precision()
        assert torch.get_float32_matmul_precision() == before == "highest"
        gpus(1)
        TrainerOptions().set_matmul_precision()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_devices(gpus):
    gpus(4)
    assert TrainerOptions().n_devices == 1
    assert TrainerOptions(devices="auto").n_devices == 4
    assert TrainerOptions(devices=2).n_devices == 2
    assert TrainerOptions(devices=2).backend == "nccl"
    with pytest.raises(ConfigError, match="5 GPUs asked for, 4 found"):
        _ = TrainerOptions(devices=5).n_devices
    gpus(0)
    assert TrainerOptions(devices="auto").n_devices == 1
    assert TrainerOptions(devices=2).backend == "gloo"


def test_several_processes_get_ddp_and_one_does_not():
    two = TrainerOptions(accelerator="cpu", devices=2).trainer_arguments()
    assert type(two["strategy"]).__name__ == "DDPStrategy"
    one = TrainerOptions(accelerator="cpu").trainer_arguments()
    assert one["strategy"] == "auto"


def test_sync_batchnorm_is_for_gpus():
    with pytest.raises(ConfigError, match="sync_batchnorm: expected GPUs"):
        TrainerOptions(accelerator="cpu", devices=2, sync_batchnorm=True)


def test_synchronised_batch_norms_keep_their_activations(monkeypatch):
    network = timm.create_model("test_efficientnet.r160_in1k", num_classes=2).eval()
    image = torch.randn(2, 3, 32, 32)
    before = network(image)
    monkeypatch.delenv("WORLD_SIZE", raising=False)  # as under srun, which does not set it
    converted = synchronised(copy.deepcopy(network))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    assert torch.equal(converted(image), before)
    # torch's own converter, which Lightning uses, loses them
    naive = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    assert not torch.allclose(naive(image), before)


def test_synchronised_batch_norms_of_one_process_learn_as_plain_ones_do():
    network = timm.create_model("test_efficientnet.r160_in1k", num_classes=2).train()
    converted, image = synchronised(copy.deepcopy(network)), torch.randn(4, 3, 32, 32)
    for each in (network, converted):
        each(image).sum().backward()
    ours = dict(converted.named_parameters())
    assert all(torch.equal(p.grad, ours[k].grad) for k, p in network.named_parameters())
    kept = converted.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in network.state_dict().items())


def test_weights_of_half_precision_are_refused():
    """An average at decay 0.999 does not move in bfloat16, sums of losses stop at 256 steps."""
    with pytest.raises(ConfigError, match=r"bf16-true.*bf16-mixed keeps"):
        TrainerOptions(precision="bf16-true")


@pytest.mark.parametrize(
    "arguments",
    [{"max_epochs": 0}, {"check_val_every_n_epoch": 0}, {"precision": "foo"}],
)
def test_values_that_would_fail_or_mean_something_else(arguments):
    with pytest.raises(ConfigError, match="trainer"):
        TrainerOptions(**arguments)


@pytest.mark.parametrize("devices", [0, -1, "many", "1.5", None])
def test_devices_that_are_none(devices):
    with pytest.raises(ConfigError, match=r"trainer\.devices"):
        TrainerOptions(devices=devices)


def test_an_accelerator_that_would_quietly_be_the_cpu():
    with pytest.raises(ConfigError, match="one of auto, cpu, gpu, got 'tpu'"):
        TrainerOptions(accelerator="tpu")
