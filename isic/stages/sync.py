"""Send to W&B what trainings kept offline."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from isic.dashboard.send import kept, send_kept
from isic.dashboard.torn import holds_records
from isic.errors import IsicError, first_five
from isic.streams import show

log = logging.getLogger(__name__)


def sync(cfg: DictConfig) -> str:
    """Send every offline run under the runs' folder that was not sent yet.

    A run that is being trained is left for later.

    Raises:
        ConfigError: No API key.
        IsicError: No connection, or runs that could not be sent.
    """
    root = Path(cfg.paths.runs).resolve()
    folders = [folder for folder in kept(root) if holds_records(folder)]
    if not folders:
        log.info("nothing to send under %s", root)
        return ""
    sent = send_kept(folders, timeout=cfg.timeout)
    for folder in sent:
        show(f"sent {folder}")
    if len(sent) < len(folders):
        left = first_five(f for f in folders if f not in sent)
        raise IsicError(
            f"W&B: {len(sent)} of {len(folders)} runs were sent, not {left}. What is left is whole "
            "on disk; the same command goes on with it."
        )
    line = f"{len(sent)} runs sent"
    show(line)
    return line
