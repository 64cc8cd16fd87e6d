"""DICOM files (SIIM-ISIC 2020's `.dcm`): the image without any tag, and a few allowed tags.

Source: PS3.5 and PS3.3 C.7.6.3 of the standard. SIIM's files hold one JPEG frame (baseline,
YBR_FULL_422), which comes out as it is; other pixels come out as PNG, lossless. No window and no
look-up of values is applied: grey of any depth is scaled from its stored bits.
The files that this was tried on were written after that description; none is from the archive.

Trap: a DICOM carries names and birth dates. Tags are read by `ALLOWED` alone, and `sources` gives
only what `dicom_image` returns, so that no pack holds anything else of the file.
"""

import io
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from isic.images import png
from isic.images.depth import least_depth
from isic.images.limits import ALLOWANCE, MAX_PIXELS, ImageError, refuse_bomb

if TYPE_CHECKING:
    from pydicom import Dataset

ALLOWED = (
    "PatientID", "PatientSex", "PatientAge", "BodyPartExamined", "Rows", "Columns",
    "PhotometricInterpretation",
)  # fmt: skip
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # baseline; extended, if of 8 bits
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1"
_HEAD_BYTES = 4096
_AS_IT_IS = ("YBR_FULL", "YBR_FULL_422", "RGB", "MONOCHROME2")
# Adobe's segment with transform 0: "three components are RGB". Without it, and without JFIF's,
# libjpeg takes them for YCbCr.
_STORED_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}

Tags = dict[str, str | int | float]


def dicom_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The encoded image in a DICOM file's bytes: its JPEG frame, or a PNG of its pixels.

    Raises ImageError with the reason: no DICOM, cut off, no pixel data, several frames, too large.
    """
    dataset = _read(data, max_pixels=max_pixels)
    try:
        if "PixelData" not in dataset:
            raise ImageError("DICOM without pixel data, or cut off before it")
        refuse_bomb(int(dataset.Rows), int(dataset.Columns), max_pixels)
        if int(dataset.get("NumberOfFrames") or 1) != 1:
            raise ImageError(f"DICOM of {dataset.NumberOfFrames} frames, expected one image")
        kind = str(dataset.get("PhotometricInterpretation", ""))
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        if syntax in _JPEG and dataset.BitsStored == 8 and kind in _AS_IT_IS:
            return _jpeg_frame(dataset, stored_rgb=kind == "RGB")
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            _refuse_frame(dataset, max_pixels)
        declared = int(dataset.BitsStored) < 16 and kind != "PALETTE COLOR"
        return _png(_pixels(dataset, kind), declared=declared)
    except ImageError:
        raise
    except Exception as error:  # pydicom: AttributeError, ValueError, NotImplementedError, ...
        raise ImageError(f"DICOM whose pixels cannot be read: {error}") from error


def dicom_tags(source: bytes | str | Path) -> Tags:
    """The tags of `ALLOWED` that a file has; PatientAge in years. Nothing else is ever returned.

    Raises ImageError where it is no DICOM, or its PatientAge is no age.
    """
    dataset = _read(source, only=list(ALLOWED))
    tags: Tags = {}
    for name in ALLOWED:
        try:  # a value is read from its bytes when it is asked for
            value = dataset.get(name)
            if value is None or not str(value).strip():
                continue
            tags[name] = int(value) if name in ("Rows", "Columns") else str(value).strip()
        except Exception as error:  # NotImplementedError, BytesLengthException, TypeError, ...
            raise ImageError(f"DICOM damaged in its tag {name}: {error}") from error
    if "PatientAge" in tags:
        tags["PatientAge"] = _years(str(tags["PatientAge"]))
    return tags


def _read(
    source: bytes | str | Path, *, only: list[Any] | None = None, max_pixels: int = MAX_PIXELS
) -> "Dataset":
    from pydicom import dcmread
    from pydicom.config import disable_value_validation
    from pydicom.errors import InvalidDicomError

    try:
        file: Any = source
        if _DEFLATED in _head(source):
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            file = io.BytesIO(_inflated(data, max_pixels, whole=only is None))
        elif isinstance(source, bytes):
            file = io.BytesIO(source)
        with disable_value_validation():  # an odd value in a tag that nobody reads is no matter
            return dcmread(file, stop_before_pixels=only is not None, specific_tags=only)
    except ImageError:
        raise
    except InvalidDicomError as error:
        raise ImageError("not a DICOM file: no DICM after its first 128 bytes") from error
    except OSError:
        raise
    except Exception as error:  # EOFError, struct.error, ValueError, KeyError, ...
        raise ImageError(f"DICOM cut off or damaged: {error}") from error


def _head(source: bytes | str | Path) -> bytes:
    """Where the transfer syntax stands."""
    if isinstance(source, bytes):
        return source[:_HEAD_BYTES]
    with open(source, "rb") as file:
        return file.read(_HEAD_BYTES)


def _inflated(data: bytes, max_pixels: int, *, whole: bool) -> bytes:
    """The file as it was before it was deflated; pydicom would inflate whatever there is.

    The sides stand near the beginning, and say how much there can be. `whole=False` ends there.
    """
    from pydicom import dcmread

    end = 144 + int.from_bytes(data[140:144], "little")  # after the group of the file's own tags
    head = data[:end].replace(_DEFLATED, _EXPLICIT.ljust(len(_DEFLATED), b"\0"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    first = inflater.decompress(data[end:], ALLOWANCE // 16)
    if not whole:
        return head + first
    sides = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated"]
    tags = dcmread(io.BytesIO(head + first), stop_before_pixels=True, specific_tags=list(sides))
    height, width, samples, bits = (int(tags.get(name) or 1) for name in sides)
    refuse_bomb(height, width, max_pixels)
    most = height * width * samples * bits // 8 + ALLOWANCE
    rest = inflater.decompress(inflater.unconsumed_tail, most)
    if inflater.unconsumed_tail:
        raise ImageError(f"DICOM that inflates to more than {most:,} bytes, which its sides allow")
    return head + first + rest


def _refuse_frame(dataset: "Dataset", max_pixels: int) -> None:
    """A frame has sides of its own, or runs: what it becomes is not what the tags say."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    stored = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    if len(frame) > stored * int(dataset.BitsAllocated) // 4 + ALLOWANCE:
        raise ImageError(f"DICOM frame of {len(frame):,} bytes for {stored:,} samples")
    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            refuse_bomb(image.height, image.width, max_pixels)
    except UnidentifiedImageError:  # run lengths, or what pydicom cannot read either
        pass


def _years(age: str) -> float:
    """`045Y` -> 45.0; also months, weeks and days."""
    found = re.fullmatch(r"(\d{1,3})([DWMY]?)", age.upper())
    if found is None:
        raise ImageError(f"DICOM PatientAge: expected an age such as 045Y, got {age!r}")
    return int(found[1]) * _YEARS[found[2]]


def _jpeg_frame(dataset: "Dataset", *, stored_rgb: bool) -> bytes:
    """The one frame, of however many fragments, with the padding after it."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    head = frame[: max(frame.find(b"\xff\xdb"), 0)]
    space = simplejpeg.decode_jpeg_header(frame)[2]
    if stored_rgb and space == "YCbCr" and b"JFIF\0" not in head and b"Adobe" not in head:
        return frame[:2] + _STORED_RGB + frame[2:]
    return frame


def _pixels(dataset: "Dataset", kind: str) -> npt.NDArray[Any]:
    """Grey (H, W) or RGB (H, W, 3), uint8 or uint16, as it is meant to be seen."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    pixels = pixel_array(dataset, index=0)  # YBR comes out as RGB
    bits = int(dataset.BitsStored)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        bits = 8 * pixels.dtype.itemsize
    elif dataset.get("PixelRepresentation"):
        pixels = pixels.astype(np.int64) + 2 ** (bits - 1)
    top, wanted = 2**bits - 1, np.uint8 if bits <= 8 else np.uint16
    full = np.iinfo(wanted).max
    pixels = pixels.clip(0, top)
    if kind == "MONOCHROME1":  # white is 0
        if bits == 16:  # turned over by the depth that the PNG's reader will find and note
            top = full = 2 ** least_depth(int(pixels.max())) - 1
        pixels = top - pixels
    if top != full:
        pixels = pixels.astype(np.int64) * full // top
    return pixels.astype(wanted)


def _png(pixels: npt.NDArray[Any], *, declared: bool) -> bytes:
    """A PNG; `declared`: its depth is the file's own word, and no decoder need guess it."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels  # OpenCV writes BGR
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered))
    if not done:
        raise ImageError(f"pixels of shape {pixels.shape} cannot be written as PNG")
    data = encoded.tobytes()
    if not declared or pixels.dtype != np.uint16:
        return data
    depth = png.chunk(b"sBIT", bytes([16] * (3 if pixels.ndim == 3 else 1)))
    return data[: png.HEADER_END] + depth + data[png.HEADER_END :]
