"""Every yaml of conf/: binds to what it configures, composes, and trains a step; run identities."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from isic.cli import CONF
from isic.config import SCHEMAS
from isic.config.targets import locate
from isic.errors import ConfigError
from isic.identity import run_name
from isic.runs import RunFolder
from isic.signatures import check_signatures
from tests.archives import TINY

FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = sorted(p for p in FILES if p.parent != CONF and p.parent.name != "command")
ROOTS = sorted(p for p in FILES if p.parent == CONF)
CHOSEN = [p for p in GROUPS if p.parent.parent == CONF]  # not those that a choice is made of
TRAINED = ("callbacks", "logger", "folds")  # how a network learns: test_every_yaml.py
SINGLE = {"fold", "seed", "name", "overwrite", "evaluate"}  # keys of the root itself
# What code gives to a target beside the keys of its yaml.
GIVEN = {
    "data": "split transforms sampler auxiliary fold seed runs_root cache_root",
    "index": "root",
    "transforms": "size",
    "sampler": "target batch_size seed rank world_size samples_per_epoch",
    "mixing": "seed",
    "model": "n_logits image_size views metadata n_auxiliary",
    "optimizer": "params",
    "generator": "root n_images n_test seed size_range images",
    "metric": "target probs",
}


@cache
def composition(*choices: str, root: str = "train") -> DictConfig:
    """A root with some choices of groups; composing is what takes time here."""
    for name, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=node)
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(root, overrides=list(choices))


def composed(*overrides: str, root: str = "train") -> dict[str, Any]:
    """A root's config with overrides of groups and keys, as plain types."""
    key = {o: "." in o.partition("=")[0] or o.partition("=")[0] in SINGLE for o in overrides}
    cfg = composition(*(o for o in overrides if not key[o]), root=root)
    merged = OmegaConf.merge(cfg, OmegaConf.from_dotlist([o for o in overrides if key[o]]))
    plain: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    return plain


def options(group: str) -> list[str]:
    return [p.stem for p in GROUPS if p.parent.name == group]


def short(path: Path) -> str:
    return path.relative_to(CONF).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_yaml_begins_with_what_it_is_for_and_is_short(path):
    lines = path.read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ")
    assert len(first) > 20
    content = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(content) <= (16 if path in GROUPS else 40)
    assert max(map(len, lines)) <= 100


def targets(node, path=()):
    """Every node with a `_target_`, and the keys that lead to it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, (*path, str(i)))


@pytest.mark.parametrize("path", CHOSEN, ids=short)
def test_every_target_takes_its_keys_and_lacks_none(path):
    content = yaml.safe_load(path.read_text())
    if path.parent.name == "data":
        loading = yaml.safe_load((CONF / "data/loading/default.yaml").read_text())
        content = {**loading, **{k: v for k, v in content.items() if k != "defaults"}}
    check_signatures(content)
    if "defaults" in content and "_target_" not in content:
        return  # an experiment, or a variant of another yaml: bound where it is composed
    for keys, node in targets(content):
        where = [path.parent.name, *keys]
        given = next((GIVEN[k] for k in reversed(where) if k in GIVEN), "").split()
        arguments = {k: v for k, v in node.items() if k not in ("_target_", "_partial_")}
        assert not set(arguments) & set(given), "the code gives this already"
        needed = dict.fromkeys(given) if node.get("_partial_") or keys == () else {}
        signature = inspect.signature(locate(node["_target_"]))
        if path.parent.name == "metrics":
            signature.bind(None, None, **arguments)  # target and probabilities
        else:
            signature.bind(**{**arguments, **needed})


@pytest.mark.parametrize("path", ROOTS, ids=short)
def test_every_root_composes(path):
    config = composed(root=path.stem)
    check_signatures(config)
    assert path.stem in SCHEMAS
    described = set(SCHEMAS[path.stem].__dataclass_fields__)
    assert set(config) == described


@cache
def root_of(group: str) -> str:
    """`train` where it has the group, else the first root that has."""
    named = {p.stem: yaml.safe_load(p.read_text())["defaults"] for p in ROOTS}
    having = [n for n, d in named.items() if any(isinstance(c, dict) and group in c for c in d)]
    return "train" if "train" in having else having[0]


@pytest.mark.parametrize("path", [p for p in CHOSEN if p.parent.name != "generator"], ids=short)
def test_every_option_composes_with_its_root(path):
    config = composed(f"{path.parent.name}={path.stem}", root=root_of(path.parent.name))
    check_signatures(config)


def test_the_promised_choices_ship():
    promised = {
        "trainer": "auto cpu gpu ddp ddp_cpu",
        "optim": "adamw nadam",
        "loss": "auto bce focal ce",
        "logger": "csv wandb",
        "data": "isic2019 isic2020 isic2020_diagnosis isic2024 milk10k folder merged",
        "folds": "grouped hospital given",
    }
    for group, names in promised.items():
        assert set(names.split()) <= set(options(group)), group


def test_a_trainer_yaml_names_every_option():
    from isic.training.hardware import TrainerOptions

    described = set(TrainerOptions.__dataclass_fields__)
    assert set(composed("trainer=auto")["trainer"]) == {*described, "_target_"}


# ---- run identity


def name(*overrides: str, content: str = "aaaaaaaaaaaa") -> str:
    config = composed(*overrides)
    return run_name(config, data="isic2024", model="mobilenetv3", content=content)


def test_the_default_name():
    assert name().startswith("isic2024-mobilenetv3-")
    assert len(name().rpartition("-")[2]) == 6
    assert name() == name()


@pytest.mark.parametrize(
    "override",
    [
        "fold=3",
        "fold=all",
        "overwrite=true",
        "data.root=ELSEWHERE",
        "data.num_workers=3",
        "trainer=ddp_cpu",
        "trainer.devices=4",
        "trainer.num_nodes=2",
        "trainer.precision=16-mixed",
        "trainer.compile=true",
        "logger=csv",
        "logger.log_every_n_steps=1",
        "callbacks.progress=none",
        "paths.runs=ELSEWHERE",
        "paths.cache=ELSEWHERE",
    ],
)
def test_where_and_on_what_it_runs_does_not_name_a_run(override):
    assert name(override) == name()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "optim.optimizer.lr=1e-3",
        "optim=nadam",
        "finetune=head_first",
        "model.dropout=0.5",
        "model.pretrained=false",
        "loss=focal",
        "sampler=negatives",
        "transforms=none",
        "data.image_size=64",
        "data.batch_size=32",
        "data.fraction=0.5",
        "split.seed=1",
        "split.n_folds=3",
        "split.file=mine.csv",
        "trainer.max_epochs=3",
        "trainer.accumulate_grad_batches=2",
        "callbacks.ema_decay=null",
        "evaluate=best",
    ],
)
def test_what_it_learns_names_a_run(override):
    assert name(override) != name()


def test_other_rows_are_another_run():
    assert name() != name(content="bbbbbbbbbbbb")


def test_a_given_name():
    assert name("name=mine") == "mine"
    with pytest.raises(ConfigError, match="name: expected letters a to z, digits"):
        name("name=../mine")


# ---- one step of each


def trains(tmp_path, root, *overrides):
    """Compose, build and fit one training and one validation batch; returns the trainer."""
    from isic.engine.build import build_classifier, build_data, build_loggers, build_trainer
    from isic.training.hardware import TrainerOptions

    config = composed(
        *(f"data.root={root}", f"model.backbone={TINY}", "model.pretrained=false"),
        *("data.image_size=32", "data.batch_size=16", "split.n_folds=2", "trainer.accelerator=cpu"),
        *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"),
        *(f"paths.runs={tmp_path / 'runs'}", f"paths.cache={root.parent / 'cache'}"),
        *overrides,
    )
    check_signatures(config)
    config["name"] = "run"
    folder = RunFolder(tmp_path / "runs" / "run" / "fold0")
    data = build_data(config)
    folder.claim(config, {"archive": "aaaaaaaaaaaa"})
    classifier = build_classifier(config, data)
    hardware = {k: v for k, v in config["trainer"].items() if k != "_target_"}
    trainer = build_trainer(
        config, folder, TrainerOptions(**hardware), build_loggers(config, folder)
    )
    trainer.fit(classifier, data)
    return trainer


@pytest.mark.parametrize(
    "choice",
    # folds=given asks for a file: tests/split
    [f"{g}={o}" for g in TRAINED for o in options(g) if (g, o) != ("folds", "given")],
)
def test_every_option_trains_a_step(archive32, tmp_path, choice):
    trainer = trains(tmp_path, archive32, choice)
    metrics = trainer.callback_metrics
    assert trainer.global_step == 1
    assert {"train/loss", "val/loss", "val/pauc", "val/auc"} <= set(metrics)
    assert metrics["train/loss"].isfinite()
    assert sorted(p.name for p in Path(trainer.default_root_dir).iterdir()) == [
        *("checkpoints", "config.yaml", "metrics.csv")
    ]


@pytest.mark.parametrize(
    "choice",
    [
        "loss.loss.pos_weight=balanced",
        "data.val_negatives=5",
        "data.samples_per_epoch=20",
        "data.fraction=0.5",
        "data.resize=24",
        "trainer.channels_last=true",
        "trainer.deterministic=true",
        "callbacks.early_stopping=1",
        "fold=all",
    ],
)
def test_switches_train_a_step(archive32, tmp_path, choice):
    trainer = trains(tmp_path, archive32, choice)
    assert trainer.global_step == 1
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_accumulation_steps_once_for_several_batches(archive32, tmp_path):
    trainer = trains(
        *(tmp_path, archive32),
        *("trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2"),
    )
    assert trainer.global_step == 2


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment):
    config = composed(f"experiment={experiment}", "fold=0")
    check_signatures(config)
    header = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert f"experiment={experiment}" in header  # its command


def test_a_key_that_no_yaml_knows_is_refused():
    for wrong in ("modle=x", "optim.optimzer.lr=1", "data.batchsize=3", "model=resnet19"):
        with pytest.raises(HydraException):
            composition(wrong)


def test_a_key_that_its_target_does_not_take_is_refused_with_the_nearest():
    config = composed()
    config["optim"]["warmup_epoch"] = 2
    with pytest.raises(ConfigError, match=r"optim\.warmup_epoch.*Did you mean warmup_epochs"):
        check_signatures(config)
    config = composed("loss=focal")
    config["loss"]["loss"]["gama"] = 1
    with pytest.raises(ConfigError, match=r"loss\.loss\.gama.*Did you mean gamma"):
        check_signatures(config)
    with pytest.raises(ConfigError, match="cannot be imported"):
        check_signatures({"loss": {"_target_": "isic.training.losses.Absent"}})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["mixing=mixup", "mixing.p=lots"], "mixing.p: expected a number, got 'lots'"),
        (["sampler=class_balanced", "sampler.power=lots"], "sampler.power: expected a number"),
        (["finetune=layerwise", "finetune.layer_decay=slow"], "layer_decay: expected a number"),
        (["callbacks.ema_decay=high"], "callbacks.ema_decay: expected a number or null"),
        (["data.batch_size=64.5"], "data.batch_size: expected a whole number, got 64.5"),
        (["trainer.max_epochs=true"], "trainer.max_epochs: expected a whole number, got True"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_key(overrides, said):
    with pytest.raises(ConfigError, match=said):
        check_signatures(composed(*overrides))


def test_a_whole_number_is_a_number_and_a_number_may_be_a_name():
    check_signatures(composed("mixing=mixup", "mixing.p=1", "callbacks.ema_decay=null"))
    check_signatures(composed("trainer.precision=32", "data.num_workers=2"))
