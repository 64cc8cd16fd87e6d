"""The three forms in which SIIM-ISIC 2020 is handed out: JPEG files, DICOM files, TFRecords.

DICOM: JPEG baseline with YBR_FULL_422 colours, patient tags as in the SIIM files; a name and a
birth date are made up, so that what reads them can be shown to leave them alone.
TFRecord: `uint64 length, uint32 crc, data, uint32 crc` with masked CRC32C; data is one
`tf.train.Example` with the keys of the Kaggle files, text columns coded as integers.
Row unit: image.
Trap: the integer codes of a TFRecord mean nothing outside of it; its rows are known by image_name.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isic.acquire.synthetic.generated import write_images
from isic.acquire.synthetic.portraits import jpegs
from isic.acquire.synthetic.tiles import make_bank

SHARDS = 16  # Kaggle's
SHARD = 50  # rows of a shard in an archive too small for that many
INTEGERS = ("age_approx", "target")  # the other columns are codes of text


def write_form(
    root: Path, split: str, table: pd.DataFrame, frame: pd.DataFrame, arguments: dict[str, Any]
) -> None:
    """Write the images of a split as `arguments["form"]`.

    table: One row an image: image_name, patient_id, age, sex, site, diagnosis, target, nameless.
    frame: What it shows, row by row, as `photograph` gives it.
    """
    form, bank = arguments["form"], make_bank(arguments["seed"])
    names = table["image_name"].tolist()
    if form == "tfrecord":
        _write_tfrecords(root, split, table, jpegs(frame, bank))
    elif form == "dicom":
        data = jpegs(frame, bank, subsampling="422")
        files = (
            dicom_file(jpeg, row)
            for jpeg, row in zip(data, _records(table.assign(**_size(frame))), strict=True)
        )
        write_images(root, [f"{split}/{name}.dcm" for name in names], files)
    else:
        write_images(root, [f"jpeg/{split}/{name}.jpg" for name in names], jpegs(frame, bank))


def _size(frame: pd.DataFrame) -> dict[str, Any]:
    return {"width": frame["width"].to_numpy(), "height": frame["height"].to_numpy()}


def _records(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as plain dicts."""
    for values in zip(*(table[c].tolist() for c in table), strict=True):
        yield dict(zip(map(str, table.columns), values, strict=True))


def dicom_file(jpeg: bytes, row: dict[str, Any]) -> bytes:
    """One DICOM file around a JPEG.

    jpeg: Baseline, 4:2:2. row: image_name, patient_id, age, sex, site, nameless, width, height.
    """
    from io import BytesIO

    from pydicom import Dataset, config
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    # A uid of the name: the same arguments are to give the same bytes.
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[row["image_name"]])
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Modality = "XC"
    data.PatientName = f"Invented^{row['patient_id']}"
    data.PatientBirthDate = f"{2020 - row['age']:04d}0101"
    data.PatientID = row["patient_id"]
    data.PatientSex = "" if row["nameless"] else row["sex"][0].upper()
    data.PatientAge = "" if row["nameless"] else f"{row['age']:03d}Y"
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.Rows, data.Columns = row["height"], row["width"]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.LossyImageCompression = "01"
    data.PixelData = encapsulate([jpeg])
    file = BytesIO()
    with config.disable_value_validation():  # `HEAD/NECK` holds a sign that a code string must not
        data.BodyPartExamined = row["site"].upper()
        data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _write_tfrecords(root: Path, split: str, table: pd.DataFrame, images: Iterator[bytes]) -> None:
    """Write shards `<split><k>-<records>.tfrec`; the test's lack diagnosis and target."""
    folder = root / "tfrecords"
    folder.mkdir(exist_ok=True)
    columns = ["patient_id", "sex", "age_approx", "anatom_site_general_challenge"]
    columns += ["diagnosis", "target"] * (split == "train")
    plain = table.rename(columns={"age": "age_approx", "site": "anatom_site_general_challenge"})
    codes = {c: pd.factorize(plain[c], sort=True)[0] for c in columns if c not in INTEGERS}
    codes |= {c: plain[c].to_numpy() for c in columns if c in INTEGERS}
    shards = max(1, min(SHARDS, len(table) // SHARD))
    for k, rows in enumerate(np.array_split(np.arange(len(table)), shards)):
        with (folder / f"{split}{k:02d}-{len(rows)}.tfrec").open("wb") as file:
            for i in rows:
                features: dict[str, bytes | int] = {"image": next(images)}
                features["image_name"] = str(table["image_name"].iloc[i]).encode()
                features |= {c: int(codes[c][i]) for c in columns}
                file.write(tfrecord(example(features)))


def tfrecord(data: bytes) -> bytes:
    """One record around its data: length and data, each with its masked CRC32C."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _masked(data: bytes) -> int:
    """CRC32C, turned and shifted as TensorFlow stores it."""
    import google_crc32c

    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def example(features: dict[str, bytes | int]) -> bytes:
    """A `tf.train.Example` as protocol buffer: bytes as bytes_list, ints as int64_list."""
    entries = b""
    for key, value in features.items():
        if isinstance(value, bytes):
            kind = _field(1, _field(1, value))
        else:
            kind = _field(3, _field(1, _varint(value)))
        entries += _field(1, _field(1, key.encode()) + _field(2, kind))
    return _field(1, entries)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
