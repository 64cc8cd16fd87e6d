"""`train.py`: a finished run says its score at once; torch is imported where one is to train."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isic.engine.content import content_text, run_content
from isic.engine.finished import finished_line
from isic.runs import run_name
from isic.signatures import check_signatures


def fit(cfg: DictConfig) -> str:
    """Train, predict and score one fold; returns the score line.

    The same config again resumes, or prints the score that is there.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    chosen = chosen_names(config)
    if line := finished_line(config, **chosen):
        return line
    from isic.engine.build import build_data, check_components
    from isic.engine.fold import fit_fold

    check_signatures(config)
    check_components(config)
    data = build_data(config)
    content = content_text(run_content(config, data))
    config["name"] = run_name(config, **chosen, content=content)
    return fit_fold(config, data)


def chosen_names(config: dict[str, Any]) -> dict[str, str]:
    """What an automatic name says of `data` and `model`: the chosen yamls, or a given backbone."""
    choices = HydraConfig.get().runtime.choices
    model = choices["model"]
    if any(o.startswith("model.backbone=") for o in HydraConfig.get().overrides.task):
        model = config["model"]["backbone"].partition(".")[0]
    return {"data": choices["data"], "model": model}
