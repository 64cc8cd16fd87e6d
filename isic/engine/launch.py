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

from isic.errors import ConfigError, IsicError
from isic.files import write_text
from isic.workers import die_with_parent

RELAUNCHED = "ISIC_RELAUNCHED"


def rank() -> int:
    """This process among those that torchrun or srun started; 0 when alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def n_started() -> int:
    """Processes that torchrun or srun started together with this one, itself included.

    A script of sbatch has SLURM_NTASKS as well, though nobody started its other tasks yet.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return int(os.environ.get("WORLD_SIZE" if by_torchrun else "SLURM_STEP_NUM_TASKS", "1"))


def is_launched() -> bool:
    """Whether torchrun or srun started this process, so that it is one of several already."""
    return "TORCHELASTIC_RUN_ID" in os.environ or n_started() > 1


def check_ranks(n_devices: int, num_nodes: int) -> None:
    """Refuse other processes than the config wants: ranks would wait for ever, or train alone."""
    started, wanted = n_started(), n_devices * num_nodes
    if is_launched() and started != wanted:
        raise ConfigError(
            f"trainer.devices, trainer.num_nodes: {n_devices} x {num_nodes} = {wanted} processes "
            f"expected, srun or torchrun started {started}. Give trainer.devices=PROCESSES_A_NODE, "
            "or start this command once (srun -n1): it starts the processes of a node itself."
        )
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
