"""Files and folders that a walk for images passes over or follows outside, and notes on them.

Three kinds, each named and counted in the notes of a reader: files of image formats that are not
read, folders that this program wrote itself, and links that lead out of the root (followed).
Why not read what Pillow could: a GIF holds many frames and 256 colours, HEIC needs a codec that is
not everywhere, AVIF and JPEG 2000 decoders are young or slow, and each is one more parser of
foreign bytes; a conversion is one command and done once.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from isic.errors import first_five
from isic.outputs import OUTPUT_MARK

# Ending -> format, of images that people keep and that the decoder does not read.
UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    ".gif": "GIF",
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc"), "JPEG 2000"),
    ".jxl": "JPEG XL",
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "RAW"),
    **dict.fromkeys((".pef", ".srw"), "RAW"),
    **dict.fromkeys((".ppm", ".pgm", ".pnm", ".pbm"), "PNM"),
    **dict.fromkeys((".dicom", ".dic", ".ima"), "DICOM not named .dcm"),
    ".psd": "PSD",
    ".tga": "TGA",
    ".pcx": "PCX",
    ".ico": "ICO",
}
CONVERT = "convert them to JPEG or PNG under the same names"


@dataclass
class PassedOver:
    """Unread files, results and outward links that one walk below `root` has met.

    unread: Files of formats that are not read; outputs: folders of this program's results, left
    out; outside: links that lead out of the root, followed. Paths relative to the root.
    """

    root: Path
    unread: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    _real: dict[str, str] = field(default_factory=dict, repr=False)

    def follow(self, path: str, name: str) -> None:
        """Look where the link at `path` leads; `name` is what to call it."""
        target = os.path.join(os.path.dirname(path), os.readlink(path))
        folder = os.path.dirname(target)
        # Links of a data set lead into few folders: each is resolved once, not 401,059 times.
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        final = os.path.join(self._real[folder], os.path.basename(target))
        if os.path.islink(final):
            final = os.path.realpath(final)
        inside = os.path.join(self._real.setdefault("", os.path.realpath(self.root)), "")
        if not os.path.join(final, "").startswith(inside):
            self.outside.append(name)

    def look_at(self, name: str) -> None:
        """Look where a single file leads, such as a store that no walk came by."""
        path = os.path.join(self.root, name)
        if os.path.islink(path):
            self.follow(path, name)

    def notes(self) -> list[str]:
        """A sentence on each kind that was met."""
        notes = [unread_note(self.unread)] if self.unread else []
        if self.outputs:
            notes.append(
                f"{len(self.outputs)} folders hold results of this program and are left out: "
                f"{first_five(sorted(self.outputs))} (their file {OUTPUT_MARK} says so)"
            )
        if self.outside:
            notes.append(
                f"{len(self.outside)} links lead out of data.root and are followed: "
                f"{first_five(sorted(self.outside))}"
            )
        return notes


def unread_note(names: list[str]) -> str:
    """Say how many files are of which formats that are not read, and what to do."""
    counts = Counter(UNREAD[os.path.splitext(name)[1].lower()] for name in sorted(names))
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    return (
        f"image files left out, of formats that are not read: {len(names)} ({kinds}): "
        f"{first_five(sorted(names))}; {CONVERT}"
    )


def unread_of(root: Path, stems: set[str]) -> list[str]:
    """Files below `root` of formats that are not read and that bear one of these names."""
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for name in files:
            stem, ending = os.path.splitext(name)
            if ending.lower() in UNREAD and stem in stems:
                found.append(os.path.relpath(os.path.join(folder, name), root))
    return sorted(found)
