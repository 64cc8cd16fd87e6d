"""Images found by id: odd folders, links, two places, other kinds of files."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.errors import DataError
from isic.index.image_files import EXTENSIONS, find_images, holds_images, zips_of
from isic.outputs import output_folder
from tests.index.small_archives import touch

IDS = pd.Series(["a", "b", "a_downsampled"], index=[7, 8, 9])


def images_in(root: Path, ids: pd.Series, **options: Any) -> pd.Series:
    """The references alone, where nothing is to be noted."""
    refs, notes = find_images(root, ids, **options)
    assert notes == []
    return refs


def test_ids_are_whole_names_and_the_index_is_kept(tmp_path: Path) -> None:
    touch(tmp_path / "x", ["a.jpg", "a_downsampled.JPG", "b_segmentation.png", "b.txt", "B.jpg"])
    refs = images_in(tmp_path, IDS)
    assert refs.dropna().to_dict() == {7: "x/a.jpg", 9: "x/a_downsampled.JPG"}
    assert refs.index.tolist() == [7, 8, 9]


def test_nothing_there_is_all_null_text(tmp_path: Path) -> None:
    refs = images_in(tmp_path, IDS)
    assert refs.isna().all()
    assert refs.dtype == IDS.dtype
    assert images_in(tmp_path, IDS[:0]).tolist() == []


def test_resource_forks_and_hidden_folders_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path / "__MACOSX" / "x", ["a.jpg"])
    touch(tmp_path / ".cache", ["b.jpg"])
    touch(tmp_path / "x", ["._a.jpg", "._b.jpg"])
    assert images_in(tmp_path, IDS).isna().all()


def test_any_image_below_is_one_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / ".cache", ["b.jpg"])
    touch(tmp_path / "x" / "y", ["._a.jpg", "a.csv"])
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert not holds_images(tmp_path)
    touch(tmp_path / "x" / "y", ["a.WEBP"])
    assert holds_images(tmp_path)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", ["a.jpg"])
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root)
    (root / "nowhere").symlink_to(tmp_path / "gone")
    refs, notes = find_images(root, IDS)
    assert refs.dropna().tolist() == ["linked/a.jpg"]
    assert notes == ["1 links lead out of data.root and are followed: linked"]


def test_links_out_of_the_root_are_said_once_each_link_inside_is_not(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", ["a.jpg"])
    touch(tmp_path / "root" / "x", ["b.jpg"])
    (tmp_path / "root" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "root" / "a_downsampled.jpg").symlink_to("x/b.jpg")
    refs, notes = find_images(tmp_path / "root", IDS)
    assert refs.tolist() == ["a.jpg", "x/b.jpg", "a_downsampled.jpg"]
    assert notes == ["1 links lead out of data.root and are followed: a.jpg"]


@pytest.mark.parametrize("given", ["in", "in/", "./in", "in/../in", "x/../in", "../top/in"])
def test_a_folder_of_the_root_may_be_spelled_in_any_way(tmp_path: Path, given: str) -> None:
    root = tmp_path / "top"
    touch(root / "in", ["a.jpg"])
    touch(root / "x", ["a.jpg"])
    odd = root / ".." / "top"
    for place in (root, odd, Path(f"{root}/")):
        assert images_in(place, IDS, within=given).dropna().tolist() == ["in/a.jpg"]
    assert images_in(root, IDS, within=str(root / given)).dropna().tolist() == ["in/a.jpg"]


def test_a_folder_of_the_root_may_be_spelled_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "root" / "in", ["a.jpg"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    for folder in ("root/in", "~/in"):
        assert images_in(Path("root"), IDS, within=folder).dropna().tolist() == ["in/a.jpg"]


@pytest.mark.parametrize("given", ["..", "../other", "/etc", "in/../..", "nowhere"])
def test_a_folder_outside_the_root_is_refused_with_the_key(tmp_path: Path, given: str) -> None:
    touch(tmp_path / "root" / "in", ["a.jpg"])
    touch(tmp_path / "other", ["a.jpg"])
    with pytest.raises(DataError, match=r"data.index.images: expected a folder of data.root"):
        find_images(tmp_path / "root", IDS, within=given)


def test_results_below_the_root_are_left_out_and_named(tmp_path: Path) -> None:
    touch(output_folder(tmp_path / "runs" / "u"), ["a.jpg"])
    touch(tmp_path / "x", ["b.jpg"])
    refs, notes = find_images(tmp_path, IDS)
    assert refs.dropna().tolist() == ["x/b.jpg"]
    assert len(notes) == 1 and "1 folders hold results" in notes[0] and "runs/u" in notes[0]
    # the folder that is asked for is read, whoever wrote it
    assert find_images(tmp_path / "runs" / "u", IDS)[0].dropna().tolist() == ["a.jpg"]
    assert not holds_images(tmp_path / "runs")


@pytest.mark.parametrize("ending", ["heic", "AVIF", "gif", "jp2", "dng"])
def test_other_formats_of_a_row_are_named_with_the_remedy(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, [f"a.{ending}", "b.jpg", f"b.{ending}", f"no_row.{ending}"])
    refs, (note,) = find_images(tmp_path, IDS)
    assert refs.dropna().tolist() == ["b.jpg"]
    assert "not read: 1 (" in note and f"a.{ending}" in note and "convert" in note


def test_names_that_are_no_text_or_mean_something_else(tmp_path: Path) -> None:
    folder = os.fsdecode(b"Bl\xe4tter")
    touch(tmp_path / folder, ["strange.jpg"])
    touch(tmp_path / "@x", ["a.jpg"])
    assert images_in(tmp_path, IDS).dropna().tolist() == ["./@x/a.jpg"]
    touch(tmp_path / folder, ["b.jpg"])
    with pytest.raises(DataError, match=r"must have UTF-8 names without #.*udce4.*rename"):
        find_images(tmp_path, IDS)


def test_one_folder_with_two_kinds_of_a_file(tmp_path: Path) -> None:
    touch(tmp_path, ["a.png", "a.jpg", "a.dcm", "b.dcm"])
    assert images_in(tmp_path, IDS).dropna().tolist() == ["a.jpg", "b.dcm"]


def test_official_folders_win_in_their_order(tmp_path: Path) -> None:
    for folder in ("first/deeper", "second", "third"):
        touch(tmp_path / folder, ["a.jpg"])
    touch(tmp_path / "second", ["b.jpg"])
    touch(tmp_path / "third", ["b.jpg"])
    refs = images_in(tmp_path, IDS, official=("first", "second"))
    assert refs.dropna().tolist() == ["first/deeper/a.jpg", "second/b.jpg"]
    with pytest.raises(DataError, match=r"1 images lie in more than one.*second/b.* and third/b"):
        images_in(tmp_path, IDS, official=("first",))
    assert images_in(tmp_path, IDS, within="third").dropna().tolist() == [
        "third/a.jpg",
        "third/b.jpg",
    ]


def test_several_folders_are_looked_in_and_no_other(tmp_path: Path) -> None:
    touch(tmp_path / "train", ["a.jpg"])
    touch(tmp_path / "test", ["b.jpg"])
    touch(tmp_path / "small", ["a.jpg", "b.jpg", "a_downsampled.jpg"])
    for within in (["train", "test"], ["test/", "train", "train"]):
        refs = images_in(tmp_path, IDS, within=within)
        assert refs.dropna().tolist() == ["train/a.jpg", "test/b.jpg"]
    with pytest.raises(DataError, match="train/a.jpg and small/a.jpg"):
        images_in(tmp_path, IDS, within=["train", "small"])
    with pytest.raises(DataError, match="expected a folder of data.root, got .*gone"):
        images_in(tmp_path, IDS, within=["train", "gone"])
    assert images_in(tmp_path, IDS, within=[]).isna().all()


@given(
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from("ab"), st.sampled_from(EXTENSIONS)),
        max_size=8,
    )
)
def test_each_reference_is_a_file_of_that_name(tmp_path_factory, files) -> None:
    root = tmp_path_factory.mktemp("found")
    for folder, stem, extension in files:
        touch(root / folder, [stem + extension])
    refs = images_in(root, IDS, official=("p", "q", "r"))
    assert refs.notna().tolist() == [any(f[1] == i for f in files) for i in IDS]
    for i, ref in refs.dropna().items():
        assert (root / ref).is_file()
        assert Path(ref).stem == IDS[i]
        # A DICOM only where there is nothing else.
        others = [f for f in files if f[1] == IDS[i] and f[2] != ".dcm"]
        assert ref.endswith(".dcm") == (not others)


def test_zips_are_named_in_order(tmp_path: Path) -> None:
    touch(tmp_path, ["b.ZIP", "a.zip", "c.csv"])
    assert zips_of(tmp_path) == ["a.zip", "b.ZIP"]
