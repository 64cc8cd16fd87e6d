"""One process tree a job: several devices are relaunched once, on the frozen config.

Lightning's own launcher re-runs the script, which under `hydra -m` is the whole multirun: ranks
then train different hyper-parameters and nobody notices. Here every rank runs
`python -m isic.engine CONFIG` under `torch.distributed.run`, and reads what was resolved once.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from isic.errors import IsicError
from isic.runs import write_text

RELAUNCHED = "ISIC_RELAUNCHED"
PR_SET_PDEATHSIG = 1  # prctl(2): signal to get when the parent dies


def rank() -> int:
    """This process among those that torchrun or srun started; 0 when alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def is_launched() -> bool:
    """Whether torchrun or srun started this process, so that it is one of several already."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


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


def die_with_parent() -> None:
    """This process gets SIGTERM when the one that started it dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
