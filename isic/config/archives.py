"""Roots of what makes, fetches and examines archives."""

from dataclasses import dataclass, field
from typing import Any

from isic.config.missing import MISSING


@dataclass
class SynthConfig:
    """`python -m isic synth`: a generated archive in the official layout.

    n_images: Train images; of milk10k, train lesions with two images each.
    n_test: Test images, or lesions; null is a tenth of n_images.
    image_size: Side of every square image in pixels; null draws frames as the archive has them.
    images: False writes the tables alone.
    """

    data: Any = MISSING
    generator: Any = MISSING
    paths: Any = MISSING
    n_images: int = 2000
    n_test: int | None = None
    image_size: int | None = None
    images: bool = True
    seed: int = 0


@dataclass
class DownloadDataConfig:
    """Where a download goes."""

    root: Any = MISSING


@dataclass
class RetryConfig:
    """How often and how slowly a request is made again: `isic.acquire.download.http.Patience`."""

    attempts: int = 6
    base: float = 1.0
    longest: float = 60.0
    timeout: float = 30.0


@dataclass
class DownloadConfig:
    """`python -m isic download`: images, metadata and licences of the ISIC Archive.

    query: In the archive's own language, passed on as it is; null = every image.
    collections: A collection's number or a list of them, e.g. [70, 425]; empty = all.
    limit: At most so many images; null = all.
    n_workers: Images at once.
    api: Address of the API, version 2.
    """

    data: DownloadDataConfig = field(default_factory=DownloadDataConfig)
    paths: Any = MISSING
    query: str | None = None
    collections: Any = field(default_factory=list)
    limit: int | None = None
    n_workers: int = 8
    api: str = "https://api.isic-archive.com/api/v2"
    retry: RetryConfig = field(default_factory=RetryConfig)


@dataclass
class CheckConfig:
    """`python -m isic check`: is the archive whole, and what would give the label away?

    features: Families of a stack, which are searched for shortcuts beside the columns.
    images: Read and decode every image; False looks at the tables alone.
    overlap: Look for images that show the same, which takes as long again.
    output: Folder for `report.md` and `fingerprint.json`; null means one of its own under
        `<runs>/checks/`.
    """

    data: Any = MISSING
    features: Any = MISSING
    paths: Any = MISSING
    images: bool = True
    overlap: bool = True
    output: str | None = None
