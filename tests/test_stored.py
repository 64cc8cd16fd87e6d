"""Files of other people's making: whatever they say, a command reads them and runs nothing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from isic.checksums import KEY, sealed_json
from isic.config.targets import TARGET
from isic.engine.apply import predict
from isic.engine.inference import find_checkpoints
from isic.engine.teacher import teach
from isic.errors import CheckpointError, DataError, IsicError
from isic.index import isic2024
from isic.index.schema import index_hash
from isic.predictions import read_predictions
from isic.stages.pseudo import pseudo
from isic.stages.runs import runs
from isic.training.checkpoint import read
from tests.config.test_targets import nodes, planted
from tests.stack.runs import write_fake_run
from tests.stack.test_command import opened, stacked
from tests.test_configs import composed

Run = Callable[..., Any]
EVIL = "planted.payload"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there once the module `planted`, or its function, has run."""
    mark = tmp_path / "mark"
    code = f"import pathlib\ndef payload(*args, **kwargs):\n    pathlib.Path({str(mark)!r}).touch()"
    (tmp_path / "planted.py").write_text(f"{code}\npayload()\n")
    monkeypatch.syspath_prepend(tmp_path)
    return mark


def payloads(mark: Path) -> list[dict[str, Any]]:
    """Nodes that make the file `mark` where they become objects."""
    return [
        {TARGET: EVIL},
        {TARGET: "isic.runs.write_text", "path": {TARGET: "pathlib.Path"}, "text": "x"},
        {TARGET: "builtins.open", "_args_": [str(mark), "w"]},
        {TARGET: "isic.features.family.require", "rows": {TARGET: EVIL}},
    ]


@pytest.fixture(scope="module")
def base(archive32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/a`, an image run of made-up scores, and `runs/s`, a stack of it."""
    base = tmp_path_factory.mktemp("stored")
    index, split = opened(base, archive32, isic2024)
    run = write_fake_run(base / "runs", "a", index, split)
    config = composed(f"data.root={archive32}", f"paths.cache={base / 'cache'}", "evaluate=last")
    for fold in range(2):
        entry = config | {"name": "a", "fold": fold, "n_folds": 2, "paths": {"cache": str(base)}}
        (run / f"fold{fold}" / "config.yaml").write_text(yaml.safe_dump(entry))
        made = {"seconds": 1.0, "images_per_second": 1.0, "peak_memory_mb": 1.0}
        score = {"metrics": {}, "n": 1, "interval_over": None, "selected_on_validation": False}
        (run / f"fold{fold}" / "score.json").write_text(json.dumps(made | score))
    stacked(base, archive32, "features=[metadata]", "name=s")
    return base


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    """The runs, in a folder that a test may change."""
    return Path(shutil.copytree(base / "runs", tmp_path / "runs"))


@pytest.fixture(scope="module")
def record(trained32: Any, archive32: Path, base: Path) -> dict[str, Any]:
    """A checkpoint as a training of this archive leaves it."""
    config = composed(f"data.root={archive32}", "transforms=albumentations", "mixing=mixup")
    config |= {"name": "r", "fold": 0, "data": config["data"] | {"image_size": 32}}
    index, split = opened(base, archive32, isic2024)
    checkpoint = read(trained32.last)
    checkpoint["isic"] |= {
        "config": config,
        "info": index.info.to_dict(),
        "index_hash": index_hash(index.table),
        "split_hash": split.hash,
        "split_file": str(split.path),
    }
    return checkpoint


@pytest.fixture
def saved(record: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Write the checkpoint, some entries of its record changed."""

    def write(**changed: Any) -> Path:
        kept = {k: v for k, v in (record["isic"] | changed).items() if v != "absent"}
        torch.save(record | {"isic": kept}, tmp_path / "r.ckpt")
        return tmp_path / "r.ckpt"

    return write


@pytest.fixture
def predicted(tmp_path: Path) -> Run:
    """`predict.py` in this process: the folder of its results."""

    def run(*words: str) -> Path:
        config = composed(root="predict")
        config["paths"] = {k: str(tmp_path / k) for k in ("data", "cache", "runs")}
        config["trainer"] |= {"accelerator": "cpu", "precision": "32"}
        given = OmegaConf.merge(OmegaConf.create(config), OmegaConf.from_dotlist(list(words)))
        return Path(predict(given))

    return run


def sealed(manifest: dict[str, Any]) -> str:
    """A manifest with the checksum that who edits it would write."""
    return sealed_json({k: v for k, v in manifest.items() if k != KEY})


def verb(root: str, **given: Any) -> Any:
    return OmegaConf.create(composed(root=root) | given)


def test_a_checkpoint_predicts_and_what_is_planted_in_it_does_not_run(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any], mark: Path
) -> None:
    table = read_predictions(predicted(f"ckpt={saved()}") / "predictions.parquet")
    assert len(table) == 8
    config = record["isic"]["config"]
    first = payloads(mark)
    places = [path for path in nodes(config) if len(path) < 3 and path[0] != "trainer"]
    assert len(places) > 60
    for i, path in enumerate([*places, ("metrics", "functions", "auc"), ("data", "index", TARGET)]):
        payload = EVIL if path[-1] == TARGET else first[i % len(first)]
        file = saved(config=planted(config, path, payload))
        with pytest.raises(CheckpointError) as caught:
            predicted(f"ckpt={file}")
        assert str(path[0]) in str(caught.value) and "r.ckpt" in str(caught.value)
    assert not mark.exists()


def test_a_key_that_the_command_line_gives_is_not_read_from_the_file(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any], archive32: Path, mark: Path
) -> None:
    config = planted(record["isic"]["config"], ("data", "root"), {TARGET: EVIL})
    file = saved(config=config | {"name": "../../../elsewhere"})
    with pytest.raises(CheckpointError):
        predicted(f"ckpt={file}")
    folder = predicted(f"ckpt={saved(config=record['isic']['config'] | {'name': '../../up'})}")
    assert folder.parent.name == "predictions" and folder.name.startswith("..-..-up-test-")
    assert not mark.exists()


def test_trust_runs_what_a_checkpoint_names_and_says_so(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any], mark: Path, caplog: Any
) -> None:
    """A metric of the user's own package."""
    config = record["isic"]["config"]
    own = planted(config, ("metrics", "functions", "pauc"), {TARGET: EVIL, "_partial_": True})
    file = saved(config=own)
    with pytest.raises(
        CheckpointError, match=r"metrics\.functions\.pauc: expected a metric.*trust=true"
    ):
        predicted(f"ckpt={file}")
    assert not mark.exists()
    predicted(f"ckpt={file}", "trust=true")
    assert mark.exists()
    assert "metrics.functions.pauc: expected a metric" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 99}, "of format 99, written by a newer version"),
        ({"format": "x"}, "format: expected"),
        ({"activation": "tanh"}, "activation: expected sigmoid or softmax, got 'tanh'"),
        ({"activation": None}, "activation"),
        ({"classes": "benign"}, "classes: expected a list"),
        ({"classes": ["benign", 3]}, "classes.1: expected"),
        ({"classes": ["one"]}, "classes: expected two or more"),
        ({"classes": ["benign", "malignant", "else"]}, "network.n_logits: expected 3"),
        ({"info": {}}, "info.name is absent"),
        ({"info": "absent"}, "info is absent"),
        ({"info": [1]}, "info: expected a mapping"),
        ({"config": "absent"}, "config is absent"),
        ({"config": {}}, "config.name is absent"),
        ({"config": []}, "config: expected a mapping"),
        ({"data.views": 3}, "config.data.views: expected null or a list, got 3"),
        ({"data.index": {TARGET: "isic.index.isic2024.build_index"}}, "index._partial_: expected"),
        ({"data.cache": "disk"}, "data.cache: expected bytes or pixels, got disk"),
        ({"data.batch_size": "many"}, "data.batch_size: expected a whole number, got 'many'"),
        ({"data.colour": 1}, "data.colour"),
        ({"metrics.functions": {"auc": 3}}, "config.metrics.functions.auc: expected a mapping"),
        ({"metadata": {"columns": ["age"]}}, "metadata.numbers is absent"),
        ({"metadata": 3}, "metadata: expected a mapping"),
        ({"network": []}, "network: expected a mapping"),
        (
            {"network": {"backbone": "hf-hub:some/where"}},
            "network.backbone: expected a name of timm",
        ),
        ({"network": {"backbone": "hf:/a/folder"}}, "network.backbone: expected hf: and a config"),
        (
            {"network": {"backbone": 'hf:{"model_type": "x", "use_pretrained_backbone": true}'}},
            "network.backbone: expected a model without parts from elsewhere",
        ),
        ({"network_class": 5}, "network_class"),
        ({"network_class": "planted.payload"}, "network_class: expected a network"),
        ({"split_hash": ["x"]}, "split_hash"),
        ({"auxiliary": [{}]}, "auxiliary.0.name is absent"),
    ],
)
def test_a_record_that_is_something_else_is_refused_by_its_key(
    saved: Callable[..., Path],
    predicted: Run,
    record: dict[str, Any],
    changed: dict[str, Any],
    said: str,
    mark: Path,
) -> None:
    key, value = next(iter(changed.items()))
    if "." in key:  # of the config
        changed = {"config": planted(record["isic"]["config"], tuple(key.split(".")), value)}
    with pytest.raises(CheckpointError) as caught:
        predicted(f"ckpt={saved(**changed)}")
    assert said in str(caught.value) and "r.ckpt" in str(caught.value)
    assert caught.value.exit_code == 4 and not mark.exists()


@pytest.mark.parametrize("side", [0, -1, 10**9, "large", None, 32.5, [32]])
def test_a_side_that_is_none_is_refused(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any], side: Any
) -> None:
    network = record["isic"]["network"] | {"image_size": side}
    with pytest.raises(CheckpointError, match=r"network\.image_size: expected 1 to 4096, got"):
        predicted(f"ckpt={saved(network=network)}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_workers", 3000, r"data\.num_workers: expected"),  # processes
        ("resize", 60_000, r"data\.resize: expected"),  # 10 GB an image
    ],
)
def test_a_file_takes_no_more_of_the_machine_than_a_training(
    saved: Callable[..., Path],
    predicted: Run,
    record: dict[str, Any],
    key: str,
    value: int,
    said: str,
) -> None:
    config = record["isic"]["config"]
    path = saved(config=config | {"data": config["data"] | {key: value}})
    with pytest.raises(CheckpointError, match=said):
        predicted(f"ckpt={path}")
    network = record["isic"]["network"] | {"views": [f"view {i}" for i in range(900)]}
    with pytest.raises(CheckpointError, match=r"network\.views: expected up to 16, got 900"):
        predicted(f"ckpt={saved(network=network)}")


def test_a_seed_beyond_64_bits_is_refused(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any]
) -> None:
    config = record["isic"]["config"] | {"seed": -(10**30)}
    with pytest.raises(CheckpointError, match=r"config\.seed: expected 0 to"):
        predicted(f"ckpt={saved(config=config)}")


def test_parts_of_info_and_metadata_must_fit(
    saved: Callable[..., Path], predicted: Run, record: dict[str, Any]
) -> None:
    isic = record["isic"]
    number = {"median": 50.0, "mean": 50.0, "std": 1.0}
    encoder = {
        "columns": ["age"],
        "numbers": {"age": number},
        "categories": {},
        "groups": {"age": ["age"]},
    }
    for changed, said in (
        ({"info": isic["info"] | {"classes": ["a", "b"]}}, "info.classes: expected benign"),
        ({"info": isic["info"] | {"later": 1}}, "may be of a newer version"),
        ({"info": isic["info"] | {"row_unit": "pixel"}}, "info.row_unit: expected image or lesion"),
        ({"metadata": encoder}, "make 2 features, network.metadata has 0"),
        ({"metadata": encoder | {"groups": {}}}, "metadata.groups: expected the columns"),
        ({"metadata": encoder | {"numbers": {"age": {}}}}, "metadata.numbers.age.median is absent"),
        ({"metadata": encoder | {"numbers": {"age": number | {"later": 1}}}}, "got later too"),
    ):
        with pytest.raises(CheckpointError, match=said):
            predicted(f"ckpt={saved(**changed)}")


def test_weights_that_are_none_are_refused(saved: Callable[..., Path], record: Any) -> None:
    for state in (None, [], {"network.head.weight": "x"}, {1: torch.zeros(1)}):
        path = saved()
        torch.save(record | {"state_dict": state}, path)
        with pytest.raises(CheckpointError, match="state_dict"):
            read(path)


def test_a_teacher_is_data(
    base: Path, record: dict[str, Any], data32: Any, tmp_path: Path, mark: Path
) -> None:
    run = Path(shutil.copytree(base / "runs" / "a", tmp_path / "runs" / "a"))
    student = composed("distill=run", f"distill.teacher={run}")
    student["paths"] = {"runs": str(tmp_path / "runs"), "cache": str(tmp_path / "cache")}
    config = record["isic"]["config"]
    for path in (("data", "views"), ("data", "metadata"), ("metrics", "functions", "auc")):
        bad = record["isic"] | {"config": planted(config, path, {TARGET: EVIL})}
        for fold in range(2):
            folder = run / f"fold{fold}" / "checkpoints"
            folder.mkdir(exist_ok=True)
            torch.save(record | {"isic": bad}, folder / "last.ckpt")
        with pytest.raises(CheckpointError, match=rf"{path[0]}.*trust=true"):
            teach(student, data32())
    assert not mark.exists()


@pytest.mark.parametrize("path", [("data", "index"), ("metrics", "functions", "auc"), ("loss",)])
def test_the_table_of_runs_runs_nothing(
    copied: Path, path: tuple[str, ...], mark: Path, caplog: Any
) -> None:
    caplog.set_level("INFO")
    file = copied / "a" / "fold0" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for payload in payloads(mark):
        file.write_text(yaml.safe_dump(planted(config, path, payload)))
        with pytest.raises(CheckpointError, match=rf"{path[0]}.*trust=true") as caught:
            runs(verb("runs", paths={"runs": str(copied)}))
        assert caught.value.exit_code == 4
        assert "pauc 0." in caplog.text  # the stack beside it is shown
    assert not mark.exists()


def test_the_table_of_runs_puts_together_what_is_whole(copied: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    runs(verb("runs", paths={"runs": str(copied)}))
    assert (copied / "a" / "oof.parquet").exists()


@pytest.mark.parametrize("text", ["{", "\xff", "[1]", '{"metadata": 1}', '{"metadata": {}}'])
def test_what_features_learned_is_data(
    copied: Path, predicted: Run, archive32: Path, text: str
) -> None:
    manifest = copied / "s" / "stack.json"
    about = json.loads(manifest.read_text())
    for entry in about["features"].values():
        (copied / "s" / entry["file"]).write_bytes(text.encode("latin-1"))
        entry["sha256"] = hashlib.sha256(text.encode("latin-1")).hexdigest()
    manifest.write_text(sealed(about))
    with pytest.raises(DataError, match="features"):
        predicted(f"stack={copied / 's'}", f"data.root={archive32}")


@pytest.mark.parametrize("path", [("data", "index"), ("data", "views"), ("transforms",)])
def test_pseudo_labels_run_nothing(copied: Path, path: tuple[str, ...], mark: Path) -> None:
    file = copied / "a" / "fold0" / "config.yaml"
    paths = {"runs": str(copied), "cache": str(copied.parent / "cache")}
    given = {"predictions": str(copied / "a"), "min_confidence": 0.01, "paths": paths}
    config = yaml.safe_load(file.read_text())
    for payload in payloads(mark):
        file.write_text(yaml.safe_dump(planted(config, path, payload)))
        with pytest.raises(IsicError, match=path[0]):
            pseudo(verb("pseudo", **given))
    assert not mark.exists()
    file.write_text(yaml.safe_dump(config))
    assert len(pd.read_csv(pseudo(verb("pseudo", **given)))) == 8


def test_a_stack_is_data(copied: Path, predicted: Run, archive32: Path, mark: Path) -> None:
    file = copied / "s" / "stack.json"
    about = json.loads(file.read_text())
    given = [f"stack={copied / 's'}", f"data.root={archive32}"]
    assert (predicted(*given) / "predictions.parquet").exists()
    places = [p for p in nodes(about) if p[0] in ("families", "data", "metrics")]
    assert len(places) > 12
    for path in places:
        for payload in payloads(mark)[:2]:
            file.write_text(sealed(planted(about, path, payload)))
            with pytest.raises((CheckpointError, DataError), match=str(path[0])):
                predicted(*given)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("runs",), [{"run": "../../up", "hash": "x"}], r"runs\.0\.run: expected text like"),
        (("runs",), [{"run": "/etc", "hash": "x"}], r"runs\.0\.run: expected text like"),
        (("runs",), [{"run": "s", "hash": "x"}], "names s, which it is itself a run of"),
        (("models", 0, "file"), "../../secret", r"models\.0\.file: expected text like"),
        (("models", 0, "kind"), "pickle", r"models\.0\.kind: expected"),
        (("models", 0, "codes"), [7], r"models\.0\.codes: expected classes 0 to 1"),
        (("models", 0, "fold"), 9, r"columns\.9 is absent"),
        (("models",), [], "models: expected one or more"),
        (("features",), {}, r"features\.0 is absent"),
        (("classes",), 3, "classes: expected a list, got 3"),
        (("combine",), "sum", "combine: expected mean or rank_mean"),
        (("data",), {}, r"data\.root is absent"),
        (("metrics",), [], "metrics: expected a mapping"),
        (("version",), 7, "has version 7"),
    ],
)
def test_a_manifest_that_is_something_else_is_refused_by_its_key(
    copied: Path, predicted: Run, path: tuple[Any, ...], value: Any, said: str
) -> None:
    file = copied / "s" / "stack.json"
    file.write_text(sealed(planted(json.loads(file.read_text()), path, value)))
    with pytest.raises(DataError, match=said) as caught:
        predicted(f"stack={copied / 's'}")
    assert "stack.json" in str(caught.value) or "itself" in said


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", "\x00", "a: [1", "{n_folds: many}", "!!python/x 1"]
)
def test_a_config_that_is_none_ends_with_its_file(copied: Path, text: str, caplog: Any) -> None:
    file = copied / "a" / "fold0" / "config.yaml"
    file.write_text(text)
    with pytest.raises((CheckpointError, DataError), match=r"fold0/config\.yaml cannot be "):
        find_checkpoints(str(copied / "a"))
    caplog.set_level("INFO")
    runs(verb("runs", paths={"runs": str(copied)}))
    named = "fold0/config.yaml cannot be read", "fold0/config.yaml is no config of a run: n_folds"
    assert any(text in caplog.text for text in named) and "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "Expecting value"), ("[]", "it: expected"), ('{"metrics": {"auc": 3}}', "metrics.auc")],
)
def test_a_score_that_is_none_ends_with_its_file(
    copied: Path, text: str, said: str, caplog: Any
) -> None:
    caplog.set_level("INFO")
    (copied / "a" / "score.json").write_text(text)
    runs(verb("runs", paths={"runs": str(copied)}))
    assert "score.json cannot be used" in caplog.text and said in caplog.text


@pytest.mark.slow
def test_the_commands_end_with_4_and_run_nothing(
    commands: Any, two_folds: tuple[Path, str], tmp_path: Path, mark: Path
) -> None:
    run = Path(shutil.copytree(two_folds[0], tmp_path / "runs" / "two"))
    path = run / "fold0" / "checkpoints" / "last.ckpt"
    checkpoint, env = read(path), {"ISIC_RUNS_ROOT": str(run.parent), "PYTHONPATH": str(tmp_path)}
    config = checkpoint["isic"]["config"]
    for place in (("split", TARGET), ("data", "views"), ("metrics", "functions", "auc")):
        payload = EVIL if place[-1] == TARGET else {TARGET: EVIL}
        checkpoint["isic"]["config"] = planted(config, place, payload)
        torch.save(checkpoint, path)
        code, text = commands.run("predict.py", "ckpt=two", env=env)
        assert code == 4 and "trust=true lets it import" in text and place[0] in text, text
    assert not mark.exists() and "Traceback" not in text
