"""What all writers share: counts by class, the mark and its refusals, the same bytes again."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.acquire import synthetic
from isic.acquire.synthetic import ARCHIVES
from isic.acquire.synthetic.generated import class_counts
from isic.errors import ConfigError, DataError

WRITERS = [getattr(synthetic, f"write_{name}") for name in ARCHIVES]
each_writer = pytest.mark.parametrize("write", WRITERS, ids=ARCHIVES)


def digests(root: Path) -> dict[str, str]:
    files = [p for p in root.rglob("*") if p.is_file()]
    return {str(p.relative_to(root)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


@given(
    n=st.integers(0, 500),
    floor=st.integers(0, 6),
    published=st.lists(st.integers(0, 20_000), min_size=1, max_size=12).filter(any),
)
def test_counts_add_up_and_small_classes_are_kept(n, floor, published):
    names = {f"c{i}": value for i, value in enumerate(published)}
    counts = class_counts(n, names, floor=floor)
    assert sum(counts.values()) == n
    least = min(floor, 2 * n // (3 * len(names)))
    assert all(counts[k] >= (least if value else 0) for k, value in names.items())
    assert all(counts[k] == 0 for k, value in names.items() if value == 0)


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=12))
def test_the_published_number_gives_the_published_counts(published):
    names = {f"c{i}": value for i, value in enumerate(published)}
    assert class_counts(sum(published), names) == names


@each_writer
def test_same_arguments_same_bytes_other_seed_other_bytes(tmp_path, write):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / name, n_images=24, n_test=3, size_range=24, seed=seed)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) > 4
    assert not {k for k in a if a[k] == c.get(k) and "sample" not in k}


@each_writer
def test_written_once_and_written_anew_without_leftovers(tmp_path, write):
    root = write(tmp_path / "a", n_images=30, n_test=3, size_range=24)
    mark = root / "synthetic.json"
    first = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write(root, n_images=30, n_test=3, size_range=24)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == first
    write(root, n_images=24, n_test=3, size_range=24)
    assert json.loads(mark.read_text())["complete"] is True
    write(tmp_path / "b", n_images=24, n_test=3, size_range=24)
    assert digests(root) == digests(tmp_path / "b")


@each_writer
def test_a_real_archive_is_left_alone(tmp_path, write):
    root = write(tmp_path / "a", n_images=24, n_test=3, size_range=24)
    (root / "synthetic.json").unlink()
    before = digests(root)
    with pytest.raises(DataError, match="must be empty or generated before"):
        write(root, n_images=30, n_test=3, size_range=24)
    assert digests(root) == before


def test_a_folder_of_images_without_tables_is_left_alone(tmp_path):
    image = tmp_path / "jpeg" / "train" / "ISIC_0000001.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"mine")
    with pytest.raises(DataError, match="got jpeg"):
        synthetic.write_isic2020(tmp_path, n_images=24, size_range=24)
    assert image.read_bytes() == b"mine"


def test_archives_of_one_seed_share_no_id(tmp_path):
    ids, lesions = [], []
    for name in ("isic2019", "isic2020", "milk10k"):
        root = getattr(synthetic, f"write_{name}")(tmp_path / name, n_images=5_000, images=False)
        text = "\n".join(p.read_text() for p in root.glob("*.csv"))
        ids.append(set(re.findall(r"ISIC_\d{7}", text)))
        lesions.append(set(re.findall(r"IL_\d{7}", text)))
    assert min(map(len, ids)) > 5_000
    assert len(set.union(*ids)) == sum(map(len, ids))
    assert len(set.union(*lesions)) == sum(map(len, lesions)) > 9_000


def test_another_generated_archive_is_left_alone(tmp_path):
    root = synthetic.write_isic2019(tmp_path, n_images=24, size_range=24, images=False)
    with pytest.raises(DataError, match="holds a generated isic2019 archive, expected milk10k"):
        synthetic.write_milk10k(root, n_images=24, size_range=24)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_mark_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "synthetic.json").write_text(text)
    with pytest.raises(DataError, match=r"synthetic\.json is not what a generated archive holds"):
        synthetic.write_isic2019(tmp_path, n_images=24, size_range=24)
    assert (tmp_path / "synthetic.json").read_text() == text


def test_a_run_that_broke_off_is_written_again(tmp_path):
    root = synthetic.write_isic2019(tmp_path / "a", n_images=24, size_range=24)
    whole = digests(root)
    mark = json.loads((root / "synthetic.json").read_text())
    (root / "synthetic.json").write_text(json.dumps({**mark, "complete": False}))
    next(root.rglob("*.jpg")).unlink()
    synthetic.write_isic2019(root, n_images=24, size_range=24)
    assert digests(root).keys() == whole.keys()


@each_writer
@pytest.mark.parametrize("wrong", [{"n_images": 1}, {"n_test": -1}])
def test_impossible_counts_are_refused(tmp_path, write, wrong):
    with pytest.raises(ConfigError, match="n_images >= 2"):
        write(tmp_path, **{"n_images": 30, **wrong})
    assert not list(tmp_path.iterdir())


@each_writer
@pytest.mark.parametrize(("n", "n_test"), [(2, 1), (3, 3), (13, 0)])
def test_tiny_archives_are_whole(tmp_path, write, n, n_test):
    root = write(tmp_path, n_images=n, n_test=n_test, size_range=24)
    files = [p.name.lower() for p in root.iterdir()]
    tests = [name for name in files if "test" in name or "submission" in name]
    assert bool(tests) == bool(n_test)
    assert json.loads((root / "synthetic.json").read_text())["complete"] is True


@each_writer
def test_tables_alone(tmp_path, write):
    root = write(tmp_path / "a", n_images=24, n_test=3, images=False)
    write(tmp_path / "b", n_images=24, n_test=3, images=True, size_range=24)
    assert not [p for p in root.rglob("*") if p.suffix in {".jpg", ".hdf5"} or p.is_dir()]
    ours, theirs = digests(root), digests(tmp_path / "b")
    tables = [name for name in theirs if name.endswith(".csv")]
    assert {k: ours[k] for k in tables} == {k: theirs[k] for k in tables}
