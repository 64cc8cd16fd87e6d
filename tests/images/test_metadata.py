"""No name, place or comment is left in what a pack holds, and no pixel is another."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from isic.images.convert import Options, convert
from isic.images.decode import decode, examine
from isic.images.jpeg import EOI, SOI
from isic.images.metadata import without_metadata
from isic.images.pack import build_pack
from isic.images.packfile import OK
from tests.images.test_damaged import encoded, photo, segment

SECRETS = (b"Ackermann", b"+49 761", b"hospital.example", b"GPS", b"Photoshop", b"thumb")


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x013B], tags[0x010E] = orientation, "Ackermann", "+49 761 / GPS"
    tags.get_ifd(0x8825)[1] = "N"  # GPS
    tags.get_ifd(0x8769)[0x9286] = b"hospital.example"  # a user's comment
    return tags


def jpeg(orientation: int = 1, **options: object) -> bytes:
    """With EXIF, XMP, a comment before and between the scans, a thumbnail, and a trailer."""
    data = encoded(
        photo(orientation), exif=exif(orientation), comment="Ackermann", quality=90,
        xmp=b"<x:xmpmeta>hospital.example</x:xmpmeta>", icc_profile=b"Photoshop" * 20, **options,
    )  # fmt: skip
    thumbnail = segment(0xE0, b"JFXX\0\x10" + b"thumb" * 3)
    late = data.rindex(b"\xff\xc4")
    data = data[:2] + thumbnail + data[2:late] + segment(0xFE, b"Ackermann") + data[late:]
    return data + b"GPS: what a phone appends" + SOI + b"thumb" + EOI


def png(orientation: int) -> bytes:
    words = PngImagePlugin.PngInfo()
    words.add_text("Author", "Ackermann")
    words.add_itxt("Comment", "hospital.example", zip=False)
    data = encoded(photo(1), "PNG", pnginfo=words, exif=exif(orientation))
    return data + b"GPS"


def webp(orientation: int) -> bytes:
    return encoded(photo(2), "WEBP", exif=exif(orientation), xmp=b"hospital.example")


def tiff(orientation: int) -> bytes:
    return encoded(photo(3), "TIFF", exif=exif(orientation), description="hospital.example")


def bmp(orientation: int) -> bytes:
    return encoded(photo(4), "BMP") + b"Ackermann"


MAKERS = {
    "jpeg": jpeg, "png": png, "webp": webp, "tiff": tiff, "bmp": bmp,
    "progressive": lambda turned: jpeg(turned, progressive=True),
    "stray": lambda turned: jpeg(turned).replace(b"\xff\xdb", b"Ackermann\xff\xdb", 1),
    "cmyk": lambda turned: encoded(photo(5).convert("CMYK"), exif=exif(turned), comment="GPS"),
}  # fmt: skip


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("maker", MAKERS)
def test_pixels_stay_and_nothing_else_does(maker, orientation):
    data = MAKERS[maker](orientation)
    assert any(secret in data for secret in SECRETS)
    row = convert(data, Options())
    assert row.status == OK, row.reason
    assert np.array_equal(decode(row.data), decode(data))
    assert not any(secret in row.data for secret in SECRETS)


def test_bytes_without_metadata_are_kept_bit_for_bit(tile):
    for data in (tile(1), encoded(photo(0)), encoded(photo(0), progressive=True)):
        assert without_metadata(data, examine(data)) == data


def test_a_comment_among_the_tables_is_found_where_the_file_looks_plain():
    data = encoded(photo(0))
    at = data.index(b"\xff\xda")
    assert (
        b"Ackermann"
        not in convert(data[:at] + segment(0xFE, b"Ackermann") + data[at:], Options()).data
    )


def test_orientation_from_xmp_alone_is_kept():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo(0), xmp=xmp)
    data = data.replace(b"\xff\xdb", b"stray\xff\xdb", 1)  # for Pillow, which reads XMP
    row = convert(data, Options())
    assert np.array_equal(decode(row.data), decode(data))
    assert b"xmp" not in row.data


def test_a_pack_holds_no_word_of_its_sources(tmp_path: Path):
    root = tmp_path / "archive"
    root.mkdir()
    for name, maker in MAKERS.items():
        (root / f"{name}.jpg").write_bytes(maker(6))
    names = sorted(path.name for path in root.iterdir())
    for options in ({}, {"resize": 32}, {"pixels": 32}):
        pack = build_pack(root, names, cache_root=tmp_path / "cache", progress=False, **options)
        assert (pack.status == OK).all()
        content = pack.path.read_bytes()
        assert not any(secret in content for secret in SECRETS)
        assert all(name.encode() in content for name in names)


def test_a_pack_of_an_earlier_release_is_named_not_read(tmp_path: Path, caplog):
    root, cache = tmp_path / "archive", tmp_path / "cache"
    root.mkdir()
    cache.mkdir()
    (root / "a.jpg").write_bytes(jpeg())
    old = cache / "archive-jpeg-0123456789abcdef.pack"
    old.write_bytes(struct.pack("<8sI", b"ISICPACK", 1) + bytes(4096) + jpeg())
    for _ in range(2):
        pack = build_pack(root, ["a.jpg"], cache_root=cache, progress=False)
    assert pack.path != old
    said = [r.message for r in caplog.records if "EXIF (places" in r.message]
    assert len(said) == 1
    assert str(old) in said[0]


def test_cmyk_keeps_what_says_how_its_colours_are_meant():
    data = encoded(photo(5).convert("CMYK"))
    assert b"Adobe" in data
    assert b"Adobe" in convert(data, Options()).data
    assert struct.unpack(">H", convert(data, Options()).data[:2]) == (0xFFD8,)
    assert Image.open(io.BytesIO(convert(data, Options()).data)).mode == "CMYK"
