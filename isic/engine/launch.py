"""One process tree a job: several devices are relaunched once, on the frozen config.

Lightning's own launcher re-runs the script, which under `hydra -m` is the whole multirun: ranks
then train different hyper-parameters and nobody notices. Here every rank runs
`python -m isic.engine CONFIG` under `torch.distributed.run`, and reads what was resolved once.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from isic.errors import ConfigError, IsicError
from isic.runs import write_text
from isic.workers import die_with_parent

RELAUNCHED = "ISIC_RELAUNCHED"


def rank() -> int:
    """This process among those that torchrun or srun started; 0 when alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def is_launched() -> bool:
    """Whether torchrun or srun started this process, so that it is one of several already.

    A script of sbatch has SLURM_NTASKS as well, though nobody started its other tasks yet.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return "TORCHELASTIC_RUN_ID" in os.environ or tasks > 1


def environment() -> ClusterEnvironment:
    """Who started the ranks, in Lightning's words; its own guess takes salloc for srun.

    A requeue is the launcher's: two that requeue would put a job into the queue twice.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if is_launched() else LightningEnvironment()


def check_nodes(num_nodes: int) -> None:
    """Refuse several nodes where nothing starts ranks on them: the first would wait for ever."""
    if num_nodes > 1 and not is_launched():
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}: this process was started alone. Add -m "
            "hydra/launcher=slurm, or start it on each node with srun or torchrun."
        )


def is_relaunched() -> bool:
    """Whether `relaunch` started this process: its parent then locks, speaks and assembles."""
    return RELAUNCHED in os.environ


def relaunch(config: Mapping[str, Any], folder: Path, *, n_devices: int) -> None:
    """Run `python -m isic.engine` on `n_devices` processes and wait for them.

    A signal to this process reaches the ranks; if it is killed they are told to end too.

    Raises:
        IsicError: A rank failed; its own message was printed by it.
    """
    frozen = folder / "frozen.yaml"
    write_text(frozen, yaml.safe_dump(dict(config), sort_keys=False))
    threads = os.environ.get("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // n_devices, 1)))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={n_devices}", "-m", "isic.engine", str(frozen)),
    ]
    ranks = subprocess.Popen(
        command,
        env={
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "10",  # not 30 s for a rank that waits for a dead one
            **os.environ,
            "OMP_NUM_THREADS": threads,
            RELAUNCHED: "1",
        },
        preexec_fn=die_with_parent,
    )
    try:
        code = ranks.wait()
    except BaseException:
        ranks.send_signal(signal.SIGTERM)
        ranks.wait()
        raise
    if code:
        raise IsicError(f"one of {n_devices} processes failed (exit code {code}); see above")
