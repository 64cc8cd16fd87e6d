"""Typed roots of the commands: one dataclass a command, registered with Hydra as `NAME_schema`.

A key that no dataclass here and no yaml in `conf/` declares is refused at compose time. Group nodes
are `Any`: their keys come from the yaml that is chosen, and a test binds each to its `_target_`.
"""

from isic.config.archives import CheckConfig, DownloadConfig, SynthConfig
from isic.config.inference import PredictConfig, PseudoConfig
from isic.config.tables import RunsConfig, StackConfig, SweepStackConfig, SyncConfig
from isic.config.training import SweepConfig, TrainConfig

SCHEMAS = {
    "train": TrainConfig,
    "predict": PredictConfig,
    "synth": SynthConfig,
    "download": DownloadConfig,
    "check": CheckConfig,
    "pseudo": PseudoConfig,
    "runs": RunsConfig,
    "sync": SyncConfig,
    "stack": StackConfig,
    "sweep": SweepConfig,
    "sweep_stack": SweepStackConfig,
}
