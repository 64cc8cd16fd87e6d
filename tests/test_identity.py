"""The same experiment under a config that knows other keys, and another one under its name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from isic import composition
from isic.checksums import Damaged
from isic.composition import CONF, Composition
from isic.errors import ConfigError
from isic.flat_config import flatten
from isic.identity import changes, differing, read_config, run_name, same_experiment
from isic.runs import RunFolder

CHOICES = {
    "data": "isic2024",
    "metrics": "isic2024",
    "model": "resnet18",
    "transforms": "light",
    "sampler": "shuffle",
    "loss": "bce",
    "mixing": None,
    "auxiliary": None,
    "distill": None,
    "finetune": None,
    "optim": "adamw",
    "folds": "grouped",
    "trainer": "cpu",
    "callbacks": "default",
    "logger": "csv",
    "paths": "default",
}


class Version:
    """The conf/ of a version of this package, to be changed, and what commands make of it."""

    def __init__(self, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.conf, self._patch = conf, monkeypatch

    def set(self, file: str, **keys: Any) -> None:
        """Give a yaml further keys; None takes one away."""
        path = self.conf / file
        node = {**yaml.safe_load(path.read_text()), **keys}
        kept = {k: v for k, v in node.items() if v is not None or k not in keys}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))

    def command(self, *given: tuple[str, Any], **chosen: Any) -> tuple[dict[str, Any], Composition]:
        """The config of a command with these choices and values, and what it was composed of."""
        GlobalHydra.instance().clear()
        self._patch.setattr(composition, "CONF", self.conf)
        choices = {**CHOICES, **chosen}
        words = [f"{g}={o}" for g, o in choices.items() if o is not None]
        config = composition._plain("train", words)
        for key, value in given:
            node = config
            *groups, leaf = key.split(".")
            for group in groups:
                node = node[group]
            node[leaf] = value
        return config, Composition("train", choices)

    def run(self, *given: tuple[str, Any], record: bool = True, **chosen: Any) -> dict[str, Any]:
        """The config that a run keeps; `record=False` as versions before it kept it."""
        config, today = self.command(*given, **chosen)
        kept = {**config, "composition": today.record(config)} if record else config
        return dict(yaml.safe_load(yaml.safe_dump(kept)))


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    return Version(Path(shutil.copytree(CONF, tmp_path / "conf")), monkeypatch)


def said(stored: dict[str, Any], now: tuple[dict[str, Any], Composition]) -> list[str]:
    return changes(stored, now[0], now[1].defaults)


@pytest.mark.parametrize("record", [True, False])
def test_a_key_that_a_later_version_adds_stands_at_its_default(version: Version, record) -> None:
    stored = version.run(record=record)
    for file in ("light", "turned"):
        version.set(f"transforms/{file}.yaml", shear=0.5)
    version.set("optim/adamw.yaml", restarts=2)
    assert said(stored, version.command()) == []
    assert said(stored, version.command(("optim.restarts", 3))) == ["optim.restarts: None -> 3"]
    # a run of the later version, and the command of the one before it
    later = version.run(("optim.restarts", 2), record=True)
    version.set("optim/adamw.yaml", restarts=None)
    assert said(later, version.command()) == []


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(
    ("stored", "wanted", "key"),
    [
        # the same class with keys more: each of them stands at its default of the choice of today
        ({"transforms": "light"}, {"transforms": "turned"}, "transforms.rotate: None -> 180"),
        ({"transforms": "turned"}, {"transforms": "light"}, "transforms.rotate: 180 -> None"),
        ({}, {"mixing": "mixup"}, "mixing.mixup: None -> 0.4"),
        ({"mixing": "mixup"}, {}, "mixing.mixup: 0.4 -> None"),
        ({}, {"finetune": "gradual"}, "finetune.group_epochs: None -> 1"),
        ({}, {"optim": "nadam"}, "optim.optimizer.decoupled_weight_decay: None -> True"),
    ],
)
def test_another_choice_is_not_a_key_at_its_default(
    version: Version, stored, wanted, key, record
) -> None:
    kept = version.run(record=record, **stored)
    version.set("transforms/light.yaml", shear=0.5)
    version.set("transforms/turned.yaml", shear=0.5)
    assert key in said(kept, version.command(**wanted))


def test_a_key_that_this_version_does_not_know(version: Version) -> None:
    version.set("optim/adamw.yaml", restarts=2)
    stood, given = version.run(), version.run(("optim.restarts", 5))
    unknown = version.run(record=False)
    version.set("optim/adamw.yaml", restarts=None)
    assert said(stood, version.command()) == []
    assert said(given, version.command()) == ["optim.restarts: 5 -> None"]
    # nobody knows what its default was
    assert said(unknown, version.command()) == ["optim.restarts: 2 -> None"]


def test_a_key_that_was_deleted_is_not_at_its_default(version: Version) -> None:
    whole, today = version.command(data="milk10k")
    views = whole["data"].pop("views")  # ~data.views: the default of the class is another one
    kept = {**whole, "composition": today.record(whole)}
    assert said(kept, version.command(data="milk10k")) == [f"data.views: None -> {views}"]
    version.set("optim/adamw.yaml", restarts=2)  # what a later version adds stands at its default
    assert said(kept, version.command(("data.views", None), data="milk10k")) == []


def test_a_group_that_a_later_version_adds(version: Version) -> None:
    stored = version.run(record=False)
    stored.pop("finetune")  # an old version's
    assert said(stored, version.command()) == []
    assert "finetune.head_epochs: None -> 2" in said(stored, version.command(finetune="head_first"))


def test_a_content_that_was_not_hashed_yet_is_not_another_one(version: Version) -> None:
    (config, today), stored = version.command(), version.run()
    assert changes(stored, {**config, "labels_hash": "aa"}, today.defaults) == []
    kept = {**stored, "labels_hash": "bb"}
    assert changes(kept, {**config, "labels_hash": "aa"}, today.defaults)


def test_nameless_runs_are_found_under_the_name_that_they_have(version: Version, tmp_path) -> None:
    config, _ = version.command()
    name = run_name(config, data="isic2024", model="resnet18", content="aa")
    fold = RunFolder(tmp_path / "runs" / name / "fold0")
    fold.claim(version.run(), {"archive": "aa"})
    version.set("optim/adamw.yaml", restarts=2)
    later, today = version.command(("fold", 1))
    assert run_name(later, data="isic2024", model="resnet18", content="aa") != name

    def found(entry: dict[str, Any]) -> str | None:
        runs, at = tmp_path / "runs", "fold*/config.yaml"
        return same_experiment(runs, "isic2024-resnet18", entry, today.defaults, at=at)

    assert found({**later, "archive": "aa"}) == name
    assert found({**later, "archive": "bb"}) is None
    assert found({**later, "archive": "aa", "seed": 3}) is None
    RunFolder(tmp_path / "runs" / name / "fold1").claim(
        later, {"archive": "aa"}, defaults=today.defaults
    )


BASE = {"fold": 0, "data": {"batch_size": 64}, "trainer": {"accumulate_grad_batches": 1}}


def batches(size: int, count: int, **others: Any) -> dict[str, Any]:
    trainer = {"accumulate_grad_batches": count, **others.pop("trainer", {})}
    return {"fold": 0, "data": {"batch_size": size}, "trainer": trainer, **others}


def test_as_many_images_a_step_are_the_same_experiment() -> None:
    assert differing(BASE, batches(32, 2)) == []
    assert differing(batches(16, 4), batches(64, 1)) == []
    assert differing(BASE, batches(32, 1)) == ["data.batch_size: 64 -> 32"]
    # so many batches of another size are other images
    limit = {"limit_train_batches": 10}
    stored = batches(64, 1, trainer=limit)
    assert len(differing(stored, batches(32, 2, trainer=limit))) == 2


def test_where_only_the_prediction_is_left_batches_may_have_any_size(tmp_path: Path) -> None:
    first, fold = RunFolder(tmp_path / "r" / "fold0"), RunFolder(tmp_path / "r" / "fold1")
    for folder, number in ((first, 0), (fold, 1)):
        folder.claim(batches(64, 1, fold=number), {})
        folder.last.parent.mkdir()
        folder.last.touch()
    smaller = batches(16, 1, fold=1)
    with pytest.raises(ConfigError, match="data.batch_size: 64 -> 16"):
        fold.claim(smaller, {}, trained=lambda: False)
    fold.claim(smaller, {}, trained=lambda: True)
    fold.score_file.write_text("{}")
    fold.claim(smaller, {})  # finished so: the same command says its score, the first one as well
    fold.claim(batches(64, 1, fold=1), {})
    with pytest.raises(ConfigError, match="data.batch_size: 64 -> 8"):
        fold.claim(batches(8, 1, fold=1), {}, trained=lambda: True)
    with pytest.raises(ConfigError, match="data.batch_size: 64 -> 16"):  # it was trained with 64
        RunFolder(tmp_path / "r" / "fold2").claim(batches(16, 1, fold=2), {})
    assert flatten(yaml.safe_load(fold.config_file.read_text()))["data.batch_size"] == 64


@pytest.mark.parametrize(
    "choices",
    [
        {"hydra.searchpath": "[file:///elsewhere]"},
        {"model": "../../elsewhere/model"},
        {"model": "resnet18,hydra.run.dir=elsewhere"},
        {"model": "${oc.env:HOME}"},
        {"features": ["usual_isic2024", "~model"]},
        {"+hydra/launcher": "local"},
        {"model": 3},
    ],
)
def test_choices_that_a_run_states_are_names_and_no_overrides(
    choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(composition, "_plain", lambda *given: asked.append(given) or {})
    today = Composition("train", CHOICES)
    assert today.defaults({"composition": {"choices": {**CHOICES, **choices}}}) is None
    assert not asked
    assert today.defaults({"composition": {"choices": CHOICES}}) is not None and asked


def laughing(levels: int) -> str:
    """A config of a few lines that is 6 ** levels values large."""
    lines = ["b0: &b0 {x: 1}"]
    for i in range(1, levels):
        lines.append(f"b{i}: &b{i} {{{', '.join(f'k{j}: *b{i - 1}' for j in range(6))}}}")
    return "\n".join(lines)


@pytest.mark.parametrize("text", [laughing(20), "a: &a\n  b: *a\n"])
def test_a_config_that_is_nested_in_itself_is_passed_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x-aaaaaa" / "fold0" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(Damaged, match="nests deeper than"):
        read_config(file)
    assert same_experiment(tmp_path, "x", {"fold": 0}, None, at="fold*/config.yaml") is None


def test_a_folder_that_a_run_links_to_keeps_its_files(tmp_path: Path) -> None:
    precious = tmp_path / "elsewhere" / "file"
    precious.parent.mkdir()
    precious.write_text("mine")
    folder = RunFolder(tmp_path / "runs" / "r" / "fold0")
    folder.path.mkdir(parents=True)
    (folder.path / "checkpoints").symlink_to(precious.parent)
    folder.claim({"fold": 0}, {}, overwrite=True)
    assert precious.read_text() == "mine" and not (folder.path / "checkpoints").exists()
