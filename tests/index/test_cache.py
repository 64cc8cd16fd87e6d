"""The kept index is what the reader gives, and is made again whenever that could differ."""

import os
from functools import partial
from typing import ClassVar

import pandas as pd
import pytest

from isic.errors import DataError
from isic.index import cache
from isic.index.cache import cached_index, tree_stamp
from isic.index.isic2024 import build_index
from isic.index.schema import Index


class Counted:
    """A reader that counts its calls, beside its state, which is part of the key."""

    counts: ClassVar = []

    def __init__(self, mounts=None):
        self.mounts, self.number = mounts or {}, len(self.counts)
        self.counts.append(0)

    @property
    def calls(self):
        return self.counts[self.number]

    def __call__(self, root, **options):
        self.counts[self.number] += 1
        index = build_index(root)
        return Index(index.table, index.info, root, self.mounts, ["a note"])


def test_what_is_kept_is_what_is_read(archive32, tmp_path):
    read = cached_index(build_index, archive32, cache_root=tmp_path)
    kept = cached_index(build_index, archive32, cache_root=tmp_path)
    assert len(list(tmp_path.glob("isic2024-index-*.parquet"))) == 1
    pd.testing.assert_frame_equal(kept.table, read.table)
    assert (kept.info, kept.root, kept.mounts, kept.notes) == (read.info, read.root, {}, [])


def test_the_second_time_nothing_is_read(archive32, tmp_path):
    reader = Counted()
    for _ in range(3):
        index = cached_index(reader, archive32, cache_root=tmp_path)
    assert reader.calls == 1
    assert index.notes == ["a note"]


def touch_table(root):
    status = (root / "train-metadata.csv").stat()
    os.utime(root / "train-metadata.csv", ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def add_image(root):
    (root / "train-image" / "image").mkdir(parents=True)
    (root / "train-image" / "image" / "new.jpg").touch()


@pytest.mark.parametrize("change", [touch_table, add_image])
def test_a_change_of_the_archive_is_seen(archive_copy, tmp_path, change):
    reader = Counted()
    cached_index(reader, archive_copy, cache_root=tmp_path / "cache")
    change(archive_copy)
    cached_index(reader, archive_copy, cache_root=tmp_path / "cache")
    assert reader.calls == 2


def test_a_table_that_an_option_names_is_looked_at(archive32, tmp_path):
    reader = Counted()
    table = tmp_path / "labels"
    table.write_text("a")
    for text in ("a", "b"):
        table.write_text(text)
        os.utime(table, ns=(1, ord(text)))
        cached_index(partial(reader, table=str(table)), archive32, cache_root=tmp_path / "cache")
    assert reader.calls == 2


def test_a_leaf_folder_of_images_tells_when_one_comes(tmp_path):
    leaf = tmp_path / "a" / "b" / "c"
    leaf.mkdir(parents=True)
    before = tree_stamp(tmp_path)
    (leaf / "x.jpg").touch()
    assert tree_stamp(tmp_path) != before


def test_links_that_go_round_or_nowhere_do_not_hang(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    assert tree_stamp(tmp_path)


def test_options_and_code_are_part_of_the_key(archive32, tmp_path, monkeypatch):
    reader = Counted()
    cached_index(partial(reader, target="malignant"), archive32, cache_root=tmp_path)
    cached_index(partial(reader, target="diagnosis"), archive32, cache_root=tmp_path)
    assert reader.calls == 2
    monkeypatch.setattr(cache, "folders_hash", lambda *folders: "mended")
    cached_index(partial(reader, target="diagnosis"), archive32, cache_root=tmp_path)
    assert reader.calls == 3


def test_a_mounted_folder_is_looked_at_too(archive32, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    reader = Counted({"part": part})
    for _ in range(2):
        cached_index(reader, archive32, cache_root=tmp_path / "cache")
    assert reader.calls == 1
    (part / "train.csv").touch()
    assert cached_index(reader, archive32, cache_root=tmp_path / "cache").mounts == {"part": part}
    assert reader.calls == 2


def test_a_torn_file_is_made_again(archive32, tmp_path, caplog):
    reader = Counted()
    cached_index(reader, archive32, cache_root=tmp_path)
    (path,) = tmp_path.glob("*.parquet")
    path.write_bytes(path.read_bytes()[:1000])
    cached_index(reader, archive32, cache_root=tmp_path)
    assert reader.calls == 2
    assert "is no whole index" in caplog.text


def test_a_cache_that_cannot_be_written_costs_speed_only(archive32, tmp_path, caplog):
    (tmp_path / "file").touch()
    index = cached_index(build_index, archive32, cache_root=tmp_path / "file")
    assert len(index.table) == 128
    assert "set ISIC_CACHE_ROOT" in caplog.text


def test_a_folder_that_is_not_there_is_the_readers_to_tell(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        cached_index(build_index, tmp_path / "absent", cache_root=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
