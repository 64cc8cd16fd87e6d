"""References of every kind give their bytes; what is broken is one image's fault, by name."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from isic.errors import DataError
from isic.images.decode import decode
from isic.images.hdf5 import read_images
from isic.images.pack import build_pack
from isic.images.packfile import MISSING, OK, UNREADABLE
from isic.images.sources import Sources, check_refs, payload_estimate, read_refs, stat_files
from isic.images.tfrecord import records
from tests.images.tfrecords import record

SECRETS = (b"Ackermann", b"Wilhelmine", b"19341107", b"IP_1234567", b"head/neck")


def read_one(root: Path, ref: str) -> bytes | OSError | None:
    return next(iter(read_refs(Sources(root), [ref])))


@pytest.fixture
def shard(tmp_path, tile, archive) -> tuple[Path, list[int]]:
    """A TFRecord of three tiles in the archive's folder, and where each begins."""
    root, _ = archive
    parts = [record({"image": tile(30 + i), "target": [i]}) for i in range(3)]
    (root / "tfrecords").mkdir()
    path = root / "tfrecords" / "train00-3.tfrec"
    path.write_bytes(b"".join(parts))
    return path, [0, len(parts[0]), len(parts[0] + parts[1])]


def test_every_kind_of_reference_gives_its_image(archive, shard, dicom, tile):
    root, refs = archive
    (root / "IMG.JPG").write_bytes(tile(1))
    (root / "IMG.DCM").write_bytes(dicom(tile(2)))
    name = "tfrecords/train00-3.tfrec"
    asked = ["IMG.JPG", "IMG.DCM", f"{name}#{shard[1][2]}", refs[0], None, f"{name}#{shard[1][0]}"]
    got = list(read_refs(Sources(root), asked))
    stored = next(read_images(root / "train.hdf5", [refs[0].split("#")[1]]))
    assert got[1].rstrip(b"\0") == tile(2).rstrip(b"\0")
    assert got[:1] + got[2:] == [tile(1), tile(32), stored, None, tile(30)]
    assert [features["image"] for _, features in records(shard[0])] == [
        tile(i) for i in (30, 31, 32)
    ]


def test_a_pack_holds_no_tag_of_a_dicom(archive, dicom, tile, tmp_path):
    root, refs = archive
    for i in range(3):
        (root / f"{i}.dcm").write_bytes(dicom(tile(i)))
    (root / "broken.dcm").write_bytes(dicom(tile(4))[:-200])
    assert all(secret in (root / "0.dcm").read_bytes() for secret in SECRETS)
    asked = [*refs, "0.dcm", "1.dcm", "2.dcm", "broken.dcm"]
    for options in ({}, {"resize": 16}, {"pixels": 16}):
        pack = build_pack(root, asked, cache_root=tmp_path / "cache", **options)
        assert pack.status.tolist() == [OK] * 15 + [UNREADABLE]
        content = pack.path.read_bytes()
        assert not any(secret in content for secret in SECRETS)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-3], "truncated in the record at byte"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 4]) + data[-39:], "damaged one"),
    ],
)
def test_a_damaged_record_costs_one_image(archive, shard, tmp_path, damage, reason):
    path, offsets = shard
    path.write_bytes(damage(path.read_bytes()))
    asked = [f"tfrecords/{path.name}#{at}" for at in offsets]
    pack = build_pack(archive[0], asked, cache_root=tmp_path / "cache")
    assert pack.status.tolist() == [OK, OK, UNREADABLE]
    assert reason in pack.reason(2) and path.name in pack.reason(2)


@pytest.mark.parametrize(
    ("item", "reason"), [("x", "expected the offset"), ("5", "no TFRecord at")]
)
def test_a_reference_to_no_record_says_so(archive, shard, item, reason):
    assert reason in str(read_one(archive[0], f"tfrecords/{shard[0].name}#{item}"))


def test_a_record_without_an_image_says_so(archive, shard):
    path, _ = shard
    path.write_bytes(record({"image_name": b"ISIC_0000001"}))
    assert "no feature `image`" in str(read_one(archive[0], f"tfrecords/{path.name}#0"))


def test_the_name_of_a_file_decides_nothing_about_its_pixels(archive, tmp_path, tile):
    root, _ = archive
    png = io.BytesIO()
    Image.fromarray(decode(tile(3))).save(png, "PNG")
    (root / "png.jpg").write_bytes(png.getvalue())
    (root / "jpeg.PNG").write_bytes(tile(3))
    (root / "text.jpg").write_bytes(b"image_name,target\n")
    pack = build_pack(root, ["png.jpg", "jpeg.PNG", "text.jpg"], cache_root=tmp_path)
    assert pack.status.tolist() == [OK, OK, UNREADABLE]
    assert (decode(pack.encoded(0)) == decode(pack.encoded(1))).all()


def test_files_that_cannot_be_opened_are_one_images_fault(archive, tmp_path):
    root, refs = archive
    (root / "loop").symlink_to("loop")
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "folder.jpg").mkdir()
    asked = [
        "loop",
        "a/x.jpg",
        "dangling.jpg",
        "folder.jpg",
        "train.hdf5/x.jpg",
        "x" * 300,
        refs[0],
    ]
    pack = build_pack(root, asked, cache_root=tmp_path / "cache")
    broken = [UNREADABLE, UNREADABLE, MISSING, UNREADABLE, UNREADABLE, UNREADABLE]
    assert pack.status.tolist() == [*broken, OK]
    assert "symbolic links" in pack.reason(0)


def test_a_root_that_is_a_loop_of_links_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataError, match="expected an archive's folder, got none at .*loop"):
        build_pack(tmp_path / "loop", [], cache_root=tmp_path / "cache")


@pytest.mark.parametrize(
    "ref", ["..", "a/../b.jpg", "/etc/passwd", "@m/../x", "@m//etc/passwd", "x\0", "..#id"]
)
def test_references_that_leave_their_folder_are_refused(ref):
    with pytest.raises(DataError, match="inside data.root, got 1 outside"):
        check_refs(["fine.jpg", "@m/fine.jpg", None, ref])


def test_names_with_dots_are_no_way_out():
    check_refs(["a..b.jpg", "...", "x/.hidden", "@m/a..b.jpg#.."])


def test_mounts_are_folders_beside_the_root_and_unknown_ones_are_named(archive, tile, tmp_path):
    root, refs = archive
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.jpg").write_bytes(tile(9))
    sources = Sources(root, {"other": tmp_path / "other"})
    pack = build_pack(sources, ["@other/x.jpg", refs[0], "@other/y.jpg"], cache_root=tmp_path / "c")
    assert pack.status.tolist() == [OK, OK, MISSING]
    assert bytes(pack.encoded(0)) == tile(9)
    with pytest.raises(DataError, match="expected one of the mounts other, got @none"):
        build_pack(sources, ["@none/x.jpg"], cache_root=tmp_path / "c")


def test_sizes_are_estimated_from_files(archive, shard, tile):
    root, refs = archive
    (root / "a.jpg").write_bytes(tile(1))
    shards = [f"tfrecords/{shard[0].name}#{at}" for at in shard[1]]
    for asked in (["a.jpg"], refs[:6], shards, ["none.jpg"]):
        stats = stat_files(Sources(root), asked)
        estimate = payload_estimate(Sources(root), asked, stats)
        held = sum(len(data or b"") for data in read_refs(Sources(root), asked))
        assert held <= estimate <= 20 * held + 100


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_images_fault(archive):
    (archive[0] / "mine.jpg").touch(mode=0)
    assert isinstance(read_one(archive[0], "mine.jpg"), PermissionError)


def test_a_real_shard_packs(real_root, tmp_path):
    name = "tfrecords/test16-26.tfrec"
    offsets = [offset for offset, _ in records(real_root / "isic2020" / name)]
    refs = [f"{name}#{offset}" for offset in offsets]
    pack = build_pack(real_root / "isic2020", refs, cache_root=tmp_path, resize=64)
    assert pack.status.tolist() == [OK] * 26
    assert {min(decode(pack.encoded(i)).shape[:2]) for i in range(26)} == {64}
