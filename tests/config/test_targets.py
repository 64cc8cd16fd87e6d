"""What a stored config may name: everything shipped, and nothing else, at no key and no depth."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from isic.config.stored import Stored
from isic.config.targets import TARGET, make, targets_of
from isic.errors import CheckpointError
from tests.test_configs import CONF, composed, options

SHIPPED = (
    "data loading model transforms sampler loss mixing auxiliary distill finetune optim folds "
    "trainer callbacks logger metrics features selection stacker"
).split()
KEY = {"folds": "split", "loading": "data"}  # a group whose keys lie elsewhere
MERGED = {"features", "stacker"}  # a yaml of these names its node itself


def plain(value: Any) -> Any:
    """A yaml's node as it is stored: resolved, without Hydra's own list of defaults."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "defaults"}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return "filled in" if isinstance(value, str) and "${" in value else value


def files() -> list[Path]:
    return [p for group in SHIPPED for p in sorted(CONF.rglob(f"{group}/*.yaml"))]


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(CONF).as_posix())
def test_all_that_is_shipped_is_taken_from_a_file(path: Path) -> None:
    group = path.parent.name
    node = plain(yaml.safe_load(path.read_text()))
    config = {group: node} if group in MERGED else {KEY.get(group, group): node}
    Stored(config, str(path)).check()


def test_every_group_that_names_code_is_looked_at() -> None:
    own = {"generator", "launcher", "pruner", "space", "experiment", "paths", "command"}
    named = {p.parent.name for p in CONF.rglob("*/*.yaml") if TARGET in p.read_text()}
    assert named - own <= set(SHIPPED)


@pytest.mark.parametrize("experiment", [None, *options("experiment")])
def test_the_config_of_every_experiment_is_taken_from_a_file(experiment: str | None) -> None:
    config = composed(*([f"experiment={experiment}"] if experiment else []))
    Stored(config, "config.yaml").check()


PAYLOADS = """
torch.load torch.save torch.hub.load torch.jit.load joblib.load pandas.read_pickle pandas.read_csv
numpy.load pickle.load pickle.loads os.system os.popen os.remove subprocess.check_call
subprocess.Popen builtins.eval builtins.exec builtins.open builtins.__import__ shutil.rmtree
pathlib.Path pathlib.Path.touch importlib.import_module runpy.run_path functools.partial
operator.attrgetter webbrowser.open antigravity.geohash planted.payload
hydra.utils.instantiate hydra.utils.call hydra.utils.get_method
isic.index.cache.pd.read_pickle isic.index.cache.os.system isic.training.checkpoint.torch.load
isic.index.cache.whole_file isic.runs.write_text isic.runs.whole_file isic.predictions.write_score
isic.index.cache.cached_index isic.index.cache.build_index isic.stack.manifest.save_stack
isic.config.targets.make isic.config.targets.locate isic.config.stored.make
isic.acquire.synthetic.write_isic2024 isic.acquire.download.download_archive
isic.models.backbone.create_backbone isic.models.weights.read_weights isic.data.presets.os
isic.metrics.bootstrap.bootstrap_interval isic.features.selection.np.load
albumentations.load albumentations.from_dict albumentations.Lambda albumentations.cv2.imread
timm.create_model transformers.pipeline transformers.AutoModel torchmetrics.MetricCollection
torchmetrics.image.fid.FrechetInceptionDistance torchmetrics.multimodal.CLIPScore
torchmetrics.text.BERTScore isic isic. .isic isic..os isic.engine.__main__.main
""".split()


def nodes(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a config: each key, and each item of a list."""
    if isinstance(config, dict | list):
        for key in config if isinstance(config, dict) else range(len(config)):
            yield (*path, key)
            yield from nodes(config[key], (*path, key))


def planted(config: dict[str, Any], path: tuple[Any, ...], payload: Any) -> dict[str, Any]:
    """A copy of a config with something else at one place."""
    config = copy.deepcopy(config)
    place: Any = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = payload
    return config


def refused(config: dict[str, Any]) -> str:
    """The message that a config is refused with."""
    with pytest.raises(CheckpointError) as caught:
        Stored(config, "FILE").check()
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    """A run's config with every group switched on, and what a stack adds."""
    groups = "mixing=mixup auxiliary=columns distill=run finetune=gradual transforms=albumentations"
    config = composed(*groups.split())
    table = composed("features=[metadata]", "selection=permutation", root="stack")
    return config | {key: table[key] for key in ("features", "selection", "stacker")}


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_code_but_the_kinds_of_a_slot(stored: dict[str, Any], name: str) -> None:
    """In the place of a target that is there, and as a node of its own among the arguments."""
    targets = [p for p in nodes(stored) if p[-1] == TARGET]
    assert len(targets) > 25
    for path in targets:
        message = refused(planted(stored, path, name))
        assert ".".join(map(str, path[:-1])) in message and name in message
        assert "trust=true lets it import and run any code" in message
        refused(planted(stored, (*path[:-1], "hidden"), [[{"deep": {TARGET: name}}]]))


@pytest.mark.parametrize("name", ["torch.load", "isic.index.cache.pd.read_pickle", "torch.nn.ReLU"])
def test_no_code_at_any_key(stored: dict[str, Any], name: str) -> None:
    layers = ("model", "loss")  # a layer may hold layers
    for path in nodes(stored):
        if path[-1] != TARGET and not (path[0] in layers and name.startswith("torch.nn")):
            refused(planted(stored, path, {TARGET: name, "_partial_": True}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("transforms", "transforms", 0, "p"), "/etc/passwd"),
        (("transforms", "transforms", 0, "read_fn"), None),
        (
            ("transforms", "transforms", 0),
            {TARGET: "albumentations.FDA", "reference_images": ["a"]},
        ),
        (("transforms", "transforms", 0), {TARGET: "albumentations.TextImage", "font_path": "a"}),
        (("transforms", "transforms", 0), {TARGET: "albumentations.Blur", "_args_": ["x"]}),
        (("metrics", "functions", "auc", "average"), "../x"),
        (("data", "root"), "${oc.env:HOME}"),
        (("data", "views"), ["${oc.decode:1}"]),
        (("data", "extra"), "https://example.org/x.csv"),
        (("data", "index", "table"), "s3://bucket/x.csv"),
        (("name",), "${hydra:runtime.cwd}"),
        (("loss", "activation"), "file.so"),
    ],
)
def test_no_path_and_no_address_as_an_argument(
    stored: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    config = planted(stored, path, value)
    if value is None:
        Stored(config, "FILE").check()
    else:
        assert ".".join(map(str, path)) in refused(config)


def test_a_config_without_an_end_is_refused(stored: dict[str, Any]) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    wide: Any = "x"
    for _ in range(30):
        wide = [wide] * 8
    for value in (endless, wide, {"deep": b"bytes"}, {("a", "b"): object()}):
        assert "FILE" in refused(stored | {"data": value})


def test_no_module_is_imported_before_its_name_is_allowed(
    stored: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unwanted.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\npayload = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(planted(stored, ("loss", TARGET), "unwanted.payload"))
    assert not (tmp_path / "mark").exists() and "unwanted" not in sys.modules


def test_code_of_this_command_is_trusted_and_trust_says_what_runs(
    stored: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    own = planted(stored, ("loss", TARGET), "json.JSONDecoder")
    refused(own)
    Stored(own, "FILE", named=targets_of({"loss": [{TARGET: "json.JSONDecoder"}]})).check()
    Stored(own, "FILE", trust=True).check()
    assert "FILE: loss: expected" in caplog.text and "it runs, as trust=true says" in caplog.text
    node = {TARGET: "json.JSONDecoder", "strict": False}
    assert isinstance(Stored({"loss": node}, "FILE", trust=True).make("loss"), json.JSONDecoder)


def test_what_is_made_is_checked_again_and_faults_of_arguments_are_said(
    stored: dict[str, Any],
) -> None:
    file = Stored(stored, "FILE")
    metrics = file.make("metrics.functions")
    assert list(metrics) == ["pauc", "auc"]
    assert metrics["auc"]([0, 1], [0.1, 0.9]) == 1.0
    with pytest.raises(CheckpointError, match="data.index: expected a reader"):
        file.make("data.index", {TARGET: "os.getcwd"})
    with pytest.raises(CheckpointError, match="FILE: loss.absent: expected .*, got None"):
        file.make("loss.absent")
    with pytest.raises(CheckpointError, match="FILE: loss cannot be made: .*colour"):
        file.make("loss", {**stored["loss"], "colour": 1})


def test_text_stays_text() -> None:
    made = make({TARGET: "builtins.dict", "a": {"b": ["${oc.env:HOME}"]}})
    assert made == {"a": {"b": ["${oc.env:HOME}"]}}
