"""Results that lie below the folder of the images are never read as data."""

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from isic.cli import _take_paths
from isic.errors import ConfigError, first_five
from isic.index.cache import tree_stamp
from isic.index.folder import build_index
from isic.index.folder.files import image_names
from isic.index.unlabelled import build_index as build_unlabelled
from isic.outputs import OUTPUT_MARK, mark_earlier, output_folder
from tests.index.small_archives import touch

CLASSES = {"a": ["1.jpg", "2.jpg"], "b": ["3.jpg", "4.jpg"]}
SPLIT = "image_id,group,fold\n1,1,0\n2,2,1\n3,3,0\n4,4,1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two class folders, and below them what a run, its split and a prediction leave."""
    for name, files in CLASSES.items():
        touch(tmp_path / name, files)
    touch(output_folder(tmp_path / "runs" / "u") / "fold0" / "curves", ["roc.png"])
    (output_folder(tmp_path / "runs" / "splits") / "x.csv").write_text(SPLIT)
    touch(output_folder(tmp_path / "reports"), ["shortcuts.png"])
    return tmp_path


def test_class_folders_are_those_of_the_user_alone(root: Path) -> None:
    index = build_index(root)
    assert index.info.classes == ("a", "b") and len(index.table) == 4
    assert any("3 folders hold results" in note and "runs/u" in note for note in index.notes)
    assert len(build_index(root, table=False).table) == 4


def test_a_plain_folder_of_images_is_what_lay_there(root: Path) -> None:
    names, notes = image_names(root)
    assert names == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"]
    assert len(notes) == 1 and "3 folders hold results" in notes[0]
    info = build_index(root).info.to_dict()
    assert len(build_unlabelled(root, info=info).table) == 4


def test_results_that_are_asked_for_themselves_are_read(root: Path) -> None:
    assert image_names(root / "runs" / "u")[0] == ["fold0/curves/roc.png"]


def test_a_training_below_the_root_leaves_its_index_in_the_cache(root: Path) -> None:
    before = tree_stamp(root)
    (root / "runs" / "splits" / "y.csv").write_text(SPLIT)
    (output_folder(root / "runs" / "u" / "fold1") / "metrics.csv").write_text("epoch\n")
    assert tree_stamp(root) == before
    (root / "a" / "new.csv").write_text(SPLIT)
    assert tree_stamp(root) != before


def test_a_folder_that_a_user_named_is_marked_only_where_it_is_new(tmp_path: Path) -> None:
    touch(tmp_path / "mine", ["a.jpg"])
    output_folder(tmp_path / "mine", given=True)
    assert image_names(tmp_path)[0] == ["mine/a.jpg"]
    assert (output_folder(tmp_path / "new", given=True) / OUTPUT_MARK).exists()


def test_what_an_earlier_version_left_is_marked_and_data_beside_it_is_not(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for place in ("u/fold0", "stack", "splits", "photographs"):
        touch(runs / place, ["x.png"])
    for place in ("u/fold0", "stack"):
        (runs / place / "config.yaml").write_text("name: u\n")
    _take_paths(config(data={"root": str(tmp_path)}, paths={"runs": str(runs)}))
    assert image_names(tmp_path)[0] == ["runs/photographs/x.png"]
    mark_earlier(tmp_path / "nowhere")


def config(**keys: Any) -> Any:
    return OmegaConf.create(keys)


@pytest.mark.parametrize("key", ["data.root", "images"])
def test_results_do_not_go_into_the_folder_of_the_images_itself(tmp_path: Path, key: str) -> None:
    touch(tmp_path, ["a.jpg"])
    given = {"output": f"{tmp_path}/../{tmp_path.name}/", "paths": {"runs": "runs"}}
    given |= {"data": {"root": str(tmp_path)}} if key == "data.root" else {"images": str(tmp_path)}
    with pytest.raises(ConfigError, match="output: .* is the folder of the images"):
        _take_paths(config(**given))
    _take_paths(config(**{**given, "output": str(tmp_path / "results")}))


def test_names_that_are_no_utf8_beside_the_data_hurt_nothing(tmp_path: Path) -> None:
    for name, files in CLASSES.items():
        touch(tmp_path / name, files)
    for name in (b"Gr\xfc\xdfe.txt", b"b\xe4.csv"):
        (tmp_path / "a" / os.fsdecode(name)).write_text("x\n")
    (tmp_path / os.fsdecode(b"Bl\xe4tter")).mkdir()
    assert len(tree_stamp(tmp_path)) == 16
    assert len(build_index(tmp_path).table) == 4
    assert first_five([os.fsdecode(b"b\xe4.csv")]) == "b\\udce4.csv"
