"""A pack holds the archive's bytes row for row; a torn, stale or impossible one is never used."""

import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from isic.errors import DataError, IsicError
from isic.images import pack as packing
from isic.images.decode import decode, fit
from isic.images.hdf5 import read_images
from isic.images.pack import build_pack
from isic.images.packfile import HEADER_BYTES, MISSING, OK, UNREADABLE, Pack
from isic.images.progress import Progress
from isic.images.sources import Sources


def test_rows_are_the_images_in_the_given_order(archive, tmp_path):
    root, refs = archive
    pack = build_pack(root, refs, cache_root=tmp_path / "cache")
    slow = list(read_images(root / "train.hdf5", [r.split("#")[1] for r in refs]))
    assert [bytes(pack.encoded(i)) for i in range(len(pack))] == slow
    assert [pack.name(i) for i in range(len(pack))] == refs
    assert (pack.status == OK).all()
    assert pack.reason(0) == ""
    assert pack.pixels is None
    pack.warm()


def test_files_and_hdf5_mix_and_absent_images_keep_their_row(archive, tmp_path, tile):
    root, refs = archive
    (root / "images").mkdir()
    (root / "images" / "a.jpg").write_bytes(tile(77))
    mixed = ["images/a.jpg", refs[0], None, "train.hdf5#nobody", "images/none.jpg", refs[1]]
    pack = build_pack(root, mixed, cache_root=tmp_path)
    assert pack.status.tolist() == [OK, OK, MISSING, MISSING, MISSING, OK]
    assert bytes(pack.encoded(0)) == tile(77)
    assert len(pack.encoded(3)) == 0
    assert pack.reason(3) == "no such image in the archive"
    assert (pack.name(2), pack.name(3)) == ("", "train.hdf5#nobody")


def test_broken_images_are_found_and_named(archive, tmp_path, tile):
    root, refs = archive
    whole = tile(1, 64)
    broken = {
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "empty.jpg": (b"", "empty"),
        "page.jpg": (b"<!DOCTYPE html>", "not an image"),
    }
    for name, (data, _) in broken.items():
        (root / name).write_bytes(data)
    pack = build_pack(root, [*refs, *broken], cache_root=tmp_path)
    assert pack.status.tolist() == [OK] * len(refs) + [UNREADABLE] * 3
    for i, (_, reason) in enumerate(broken.values(), start=len(refs)):
        assert reason in pack.reason(i)
    pixels = build_pack(root, [*refs, *broken], cache_root=tmp_path, pixels=16)
    assert np.array_equal(pixels.status, pack.status)
    assert not pixels.pixels[-1].any()


def test_pixels_equal_decoding_at_run_time(archive, tmp_path):
    root, refs = archive
    encoded = build_pack(root, refs, cache_root=tmp_path)
    pixels = build_pack(root, refs, cache_root=tmp_path, pixels=24).pixels
    for i in range(len(refs)):
        assert np.array_equal(pixels[i], fit(decode(encoded.encoded(i), min_side=24), 24))


def test_resize_brings_the_shorter_side_to_size(tmp_path):
    from PIL import Image

    shapes = {"wide.png": (64, 32), "tall.png": (20, 50), "square.png": (24, 24)}
    y, x = np.mgrid[:64, :64]
    for name, (width, height) in shapes.items():
        ramp = np.stack([x, y, x + y], -1)[:height, :width] * 2
        Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / name)
    pack = build_pack(tmp_path, list(shapes), cache_root=tmp_path / "cache", resize=24)
    images = [decode(pack.encoded(i)) for i in range(3)]
    assert [im.shape[:2] for im in images] == [(24, 48), (60, 24), (24, 24)]
    square = np.asarray(Image.open(tmp_path / "square.png")).astype(int)
    assert np.abs(images[2] - square).mean() < 3  # one JPEG at quality 95, colour halved


@pytest.mark.parametrize("option", ["crop_border", "colour_constancy"])
def test_corrections_do_not_silently_encode_originals_again(archive, tmp_path, option):
    root, refs = archive
    with pytest.raises(ValueError, match="expected resize or pixels with crop_border"):
        build_pack(root, refs, cache_root=tmp_path, **{option: True})
    assert len(build_pack(root, refs, cache_root=tmp_path, resize=16, **{option: True})) == 12


def test_large_images_go_to_threads_in_smaller_chunks(archive, tmp_path, monkeypatch):
    root, refs = archive
    sizes: list[int] = []
    convert = packing._convert_chunk
    monkeypatch.setattr(
        packing, "_convert_chunk", lambda chunk, o: sizes.append(len(chunk)) or convert(chunk, o)
    )
    monkeypatch.setattr(packing, "_CHUNK_BYTES", 2000)
    whole = build_pack(root, refs, cache_root=tmp_path / "a").path.read_bytes()
    assert max(sizes) < 6 and sum(sizes) == 12
    monkeypatch.undo()
    assert build_pack(root, refs, cache_root=tmp_path / "b").path.read_bytes() == whole


def test_found_again_without_reading_the_archive(archive, tmp_path, monkeypatch):
    root, refs = archive
    first = build_pack(root, refs, cache_root=tmp_path)
    monkeypatch.setattr("isic.images.pack.read_refs", None)
    assert build_pack(root, refs, cache_root=tmp_path).path == first.path


@pytest.mark.parametrize(
    "change", ["mtime", "size", "refs", "resize", "pixels", "crop_border", "colour_constancy"]
)
def test_what_changes_the_bytes_changes_the_pack(archive, tmp_path, change):
    root, refs = archive
    options = {"resize": 16} if change in ("crop_border", "colour_constancy") else {}
    first = build_pack(root, refs, cache_root=tmp_path, **options)
    source = root / "train.hdf5"
    if change == "mtime":
        os.utime(source, ns=(1, 1))
    elif change == "size":
        stat = source.stat()
        source.write_bytes(source.read_bytes() + b"\0")
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "refs":
        refs = refs[::-1]
    else:
        options[change] = 16 if change in ("resize", "pixels") else True
    assert build_pack(root, refs, cache_root=tmp_path, **options).path != first.path


@pytest.mark.parametrize(
    ("options", "again"), [({}, False), ({"resize": 16}, True), ({"pixels": 16}, True)]
)
def test_another_decoder_makes_pixels_again_and_leaves_bytes(
    archive, tmp_path, monkeypatch, options, again
):
    root, refs = archive
    first = build_pack(root, refs, cache_root=tmp_path, **options)
    monkeypatch.setattr("isic.images.pack.versions", lambda *names: tuple(f"{n} 0" for n in names))
    assert (build_pack(root, refs, cache_root=tmp_path, **options).path != first.path) is again


def test_pickles_as_its_path(archive, tmp_path):
    root, refs = archive
    pack = build_pack(root, refs * 50, cache_root=tmp_path)
    data = pickle.dumps(pack)
    assert len(data) < 500
    assert bytes(pickle.loads(data).encoded(7)) == bytes(pack.encoded(7))


def test_no_images_make_an_empty_pack(tmp_path):
    assert len(build_pack(tmp_path, [], cache_root=tmp_path / "cache")) == 0


def test_archives_that_lie_elsewhere_need_no_folder_of_their_own(archive, tmp_path):
    root, refs = archive
    merged = Sources(tmp_path / "nowhere", {"other": root})
    assert len(build_pack(merged, [f"@other/{r}" for r in refs], cache_root=tmp_path)) == len(refs)
    with pytest.raises(DataError, match="got none at .*nowhere; set data.root"):
        build_pack(merged, [refs[0]], cache_root=tmp_path)


def test_a_torn_file_is_never_taken_for_whole(archive, tmp_path, caplog):
    root, refs = archive
    path = build_pack(root, refs, cache_root=tmp_path).path
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [0, 10, HEADER_BYTES, len(whole) - 1, *rng.integers(0, len(whole), 20).tolist()]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"pack|mmap"):
            Pack(path)
    zeroed = bytes(HEADER_BYTES) + whole[HEADER_BYTES:]
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for content in (zeroed, flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="pack|digest"):
            Pack(path)
    assert len(build_pack(root, refs, cache_root=tmp_path)) == len(refs)
    assert caplog.text.count("not a whole pack, made again") == 1
    assert path.read_bytes() == whole


def test_read_only_root_and_finished_cache_are_fine(archive, tmp_path):
    root, refs = archive
    cache = tmp_path / "cache"
    root.chmod(0o555)
    build_pack(root, refs, cache_root=cache)
    cache.chmod(0o555)
    try:
        assert len(build_pack(root, refs, cache_root=cache)) == len(refs)
    finally:
        cache.chmod(0o755)
        root.chmod(0o755)
    assert [p.name for p in root.iterdir()] == ["train.hdf5"]


def test_a_cache_that_cannot_be_written_is_named(archive, tmp_path):
    root, refs = archive
    with pytest.raises(IsicError, match="expected a writable cache root at .*ISIC_CACHE_ROOT"):
        build_pack(root, refs, cache_root=root / "train.hdf5")


@pytest.mark.parametrize("ref", ["../x.jpg", "/etc/passwd", "a/../../x#id", "a\0.jpg"])
def test_references_cannot_leave_the_root(archive, tmp_path, ref):
    with pytest.raises(DataError, match="inside data.root, got 1 outside"):
        build_pack(archive[0], [ref], cache_root=tmp_path)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        build_pack(tmp_path / "nowhere", [], cache_root=tmp_path)


def test_pixels_beyond_memory_are_refused_with_their_size(archive, tmp_path, monkeypatch):
    root, refs = archive
    monkeypatch.setattr("isic.images.pack.MEMORY_SHARE", 1e-9)
    with pytest.raises(IsicError, match=r"12 images of 32 px take 36,864 bytes"):
        build_pack(root, refs, cache_root=tmp_path, pixels=32)


def test_packing_loads_no_torch(archive, tmp_path):
    code = "import isic.images.pack, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_says_nothing_before_two_seconds_and_then_a_line(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr("isic.images.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Progress("packing", total=100) as bar:
        bar.advance(10)
        assert caplog.text == ""
        now[0] = 2.5
        bar.advance(15)
        bar.advance(15)
    assert [r.getMessage() for r in caplog.records] == ["packing: 25 of 100, 10/s"]


def test_progress_counts_what_was_there_but_not_as_speed(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr("isic.images.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Progress("packing", total=100, done=50) as bar:
        now[0] = 5.0
        bar.advance(10)
    assert [r.getMessage() for r in caplog.records] == ["packing: 60 of 100, 2/s"]
