"""What Hydra finds: it takes launchers from the namespace `hydra_plugins` alone.

Every command imports this, so the work lies in `isic.launchers`. Hydra's own launchers for joblib
and submitit end at the first job that dies, and say nothing of the others.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class IsicLauncher(Launcher):
    """Starts the jobs of a multirun in other processes and collects how they ended."""

    def __init__(self, **options: Any) -> None:
        plain = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
        assert isinstance(plain, dict)
        self.options = {str(key): value for key, value in plain.items()}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what `launch` needs."""
        self.task, self.config = task_function, config
        self.load = hydra_context.config_loader.load_sweep_config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run every job to its end; the outcomes go to the list that the command prints."""
        from isic.launchers import jobs, local, slurm

        logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
        launch = slurm.launch if isinstance(self, SlurmLauncher) else local.launch
        asked = jobs.jobs_of(self.task, self.config, self.load, job_overrides)
        outcomes = launch(asked, self.options)
        vars(self.task)["outcomes"].extend(outcomes)
        return []


class LocalLauncher(IsicLauncher):
    """`hydra/launcher=local`."""


class SlurmLauncher(IsicLauncher):
    """`hydra/launcher=slurm`."""
