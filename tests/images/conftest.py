"""Generated JPEG tiles of 32 px and a small HDF5 archive."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import simplejpeg

Tile = Callable[..., bytes]


@pytest.fixture(scope="session")
def tile() -> Tile:
    """A smooth random RGB square as JPEG; the same seed gives the same bytes."""

    def make(seed: int = 0, side: int = 32) -> bytes:
        rng = np.random.default_rng(seed)
        ramp = np.linspace(0, 60, side)[:, None, None] + np.zeros((side, side, 1))
        image = rng.uniform(60, 180, 3) + ramp + rng.normal(0, 3, (side, side, 1))
        return simplejpeg.encode_jpeg(image.clip(0, 255).astype(np.uint8), quality=90)

    return make


@pytest.fixture
def archive(tmp_path: Path, tile: Tile) -> tuple[Path, list[str]]:
    """A folder with an HDF5 of twelve images, and references to them in a shuffled order."""
    root = tmp_path / "archive"
    root.mkdir()
    with h5py.File(root / "train.hdf5", "w") as file:
        for i in range(12):
            file.create_dataset(f"id{i}", data=np.bytes_(tile(i)))
    order = np.random.default_rng(0).permutation(12)
    return root, [f"train.hdf5#id{i}" for i in order]


@pytest.fixture
def dicom(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """A DICOM file of SIIM-ISIC 2020's form around a JPEG frame or raw pixels.

    Written after the standard and the published description, since no file of the archive may be
    had here: one encapsulated baseline JPEG, YBR_FULL_422, and tags that name the patient.
    """
    from pydicom.config import IGNORE, settings
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

    def make(
        pixels: bytes | np.ndarray | None,
        *,
        kind: str = "YBR_FULL_422",
        shape: tuple[int, int] = (32, 32),
        syntax: str | None = None,
        **tags: object,
    ) -> bytes:
        # Archives write what the standard does not allow, such as "head/neck".
        monkeypatch.setattr(settings, "reading_validation_mode", IGNORE)
        monkeypatch.setattr(settings, "writing_validation_mode", IGNORE)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        raw = isinstance(pixels, np.ndarray)
        meta.TransferSyntaxUID = syntax or (ExplicitVRLittleEndian if raw else JPEGBaseline8Bit)
        file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        file.PatientName, file.PatientBirthDate = "Ackermann^Wilhelmine", "19341107"
        file.PatientID, file.PatientSex, file.PatientAge = "IP_1234567", "F", "045Y"
        file.BodyPartExamined = "head/neck"
        file.PhotometricInterpretation = kind
        file.Rows, file.Columns = pixels.shape[:2] if raw else shape
        file.SamplesPerPixel = pixels.ndim * 2 - 3 if raw else 3 - 2 * kind.startswith("MONO")
        file.BitsAllocated = 8 * pixels.itemsize if raw else 8
        file.BitsStored = file.BitsAllocated
        file.HighBit, file.PixelRepresentation = file.BitsStored - 1, 0
        if file.SamplesPerPixel == 3:
            file.PlanarConfiguration = 0
        for name, value in tags.items():
            setattr(file, name, value)
        if pixels is not None:
            file.PixelData = pixels.tobytes() if raw else encapsulate([pixels])
        written = io.BytesIO()
        file.save_as(written, enforce_file_format=True)
        return written.getvalue()

    return make
