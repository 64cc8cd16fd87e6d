"""`train.py`: a finished run says its score at once; torch is imported where one is to train."""

from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from isic.composition import Composition
from isic.engine.content import run_content
from isic.engine.finished import finished_line, named, stored_configs
from isic.engine.settle import settle
from isic.names import given_name
from isic.signatures import check_signatures


def fit(cfg: DictConfig) -> str:
    """Train, predict and score one fold; returns the score line.

    The same config again resumes, or prints the score that is there.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    given_name(config)
    chosen, today = chosen_names(config), Composition.of_job()
    if line := finished_line(config, **chosen, today=today):
        return line
    from isic.engine.build import build_data, check_components
    from isic.engine.fold import fit_fold
    from isic.engine.resume import is_trained

    check_signatures(config)
    check_components(config)
    data = build_data(config)
    content, trained = run_content(config, data), partial(is_trained, config)
    stored = stored_configs(config, **chosen)
    settle(config, content, data.index.info, stored=stored, today=today)
    config["name"] = named(config, **chosen, content=content, today=today, trained=trained)
    config["composition"] = today.record(config)
    return fit_fold(config, data, today=today)


def chosen_names(config: dict[str, Any]) -> dict[str, str]:
    """What an automatic name says of `data` and `model`: the chosen yamls, or a given backbone."""
    choices = HydraConfig.get().runtime.choices
    model = choices["model"]
    if any(o.startswith("model.backbone=") for o in HydraConfig.get().overrides.task):
        model = config["model"]["backbone"].partition(".")[0]
    return {"data": choices["data"], "model": model}
