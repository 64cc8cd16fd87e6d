"""JPEG files piece by piece: which are damaged, merely unusual, or too slow to decode.

Source: ITU-T T.81, annex B; the warnings are libjpeg-turbo's (jerror.h), which simplejpeg raises.
Unit: a piece is a marker with its segment; a scan (SOS) comes with its entropy-coded data.

libjpeg decodes whatever it gets, and warns. "Premature end", "bad Huffman code", "instead of RST"
and "inconsistent progression" mean lost pixels. "Extraneous bytes" mean nothing before a segment;
after a scan they are what was left over when its data went out of step, unless they are few, or
zeros, with which some cameras pad. Only the first warning can be had, hence `fault` removes what
may be there before it asks. It warns of no scan that is not there: `refuse_scans` counts them.
Trap: bytes that were changed into another valid code are beyond any decoder; of arithmetic coding
nearly all are, and libjpeg takes its end for an end wherever it comes.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice

import simplejpeg

from isic.images.limits import ImageError

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
APP0, APP14, APP15, COM, SOS = 0xE0, 0xEE, 0xEF, 0xFE, 0xDA
FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # of a frame's header: sequential or progressive
SEQUENTIAL = (0xC0, 0xC1)  # of these, Huffman-coded
TABLES = (0xC4, 0xDB, 0xDD)  # DHT, DQT, DRI
MAX_HEADER = 64  # segments before the first scan that are stepped over; others are looked at whole
# A progressive file has about 10 scans. Beyond, only where all of them together are soon done:
# a pass over 1,000 megapixels takes some seconds.
MAX_SCANS, FEW_SCANS = 100, 20
MAX_SCANNED = 1_000_000_000
MAX_PIECES = 10_000  # a colour profile takes up to 255 segments, a table one
# Not an error: neither simplejpeg nor OpenCV could be asked.
UNTOLD = "its chroma subsampling keeps damage from being seen"

_OPENCV = """
import sys, cv2, numpy
cv2.imdecode(numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8), cv2.IMREAD_REDUCED_COLOR_8)
"""
_ALONE = (0x01, *range(0xD0, 0xDA))  # markers without a segment
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
# A zero after FF belongs to it; further ones before RSTn or the scan's end carry nothing, except
# that the last byte may be one, of which a long run leaves one in its place.
_PADDING = (
    (re.compile(rb"(?<!\xff)\x00{7,}(?=\xff+[\xd0-\xd7]|\xff*\Z)"), b"\0"),
    (re.compile(rb"(?<!\xff)\x00+(?=\xff+[\xd0-\xd7]|\xff*\Z)"), b""),
)
_STRAY = re.compile(r" (\d+) extraneous bytes before marker 0xd9")
STRAY = 4  # bytes before EOI; data out of step leaves more in 99 of 100 cases


def is_jpeg(data: bytes) -> bool:
    """Return whether the first bytes say so."""
    return data[:2] == SOI


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and bytes of each piece after SOI, up to and with EOI or where the data ends.

    Stray bytes between the pieces are left out, and so is whatever follows EOI.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        while data[at : at + 1] == b"\xff":  # any number of them may fill up
            at += 1
        marker = data[at] if at < len(data) else 0
        end = at + 1
        if marker and marker not in _ALONE:
            end += int.from_bytes(data[at + 1 : at + 3], "big")
        if marker == SOS:
            found = _SCAN_END.search(data, end)
            end = found.start() if found else len(data)
        if marker:
            yield marker, b"\xff" + data[at:end]
        if marker == EOI[1]:
            return
        at = end


def fault(data: bytes) -> str:
    """Return what libjpeg finds damaged; empty where nothing is, `UNTOLD` where it cannot know.

    Reads all bytes, at an eighth of the size; twice, or more often where a few stray ones end it.
    """
    kept = [(m, piece) for m, piece in pieces(data) if not (APP0 <= m <= APP15 or m == COM)]
    first = _warning(SOI + b"".join(piece for _, piece in kept))
    if "extraneous" not in first:
        return first
    for zeros, left in _PADDING:
        unpadded = [zeros.sub(left, piece) if m == SOS else piece for m, piece in kept]
        if not _warning(SOI + b"".join(unpadded)):
            return ""
    stray = _STRAY.search(first)
    if stray is None or int(stray[1]) > STRAY or kept[-2][0] != SOS:
        return first
    # libjpeg does not count what it had read ahead: a few bytes more than it says.
    body, scan = SOI + b"".join(piece for _, piece in kept[:-2]), kept[-2][1]
    cuts = range(int(stray[1]), int(stray[1]) + 8)
    return first if all(_warning(body + scan[:-cut] + EOI) for cut in cuts) else ""


def _warning(data: bytes) -> str:
    """The first that strict decoding has to say; empty where it has nothing to."""
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1)
    except KeyError:  # simplejpeg's table of subsamplings lacks some that libjpeg-turbo names
        return _warning_of_opencv(data)
    except ValueError as error:
        return _warning_of_opencv(data) if "subsampling" in str(error) else str(error)
    return ""


def _warning_of_opencv(data: bytes) -> str:
    """Ask OpenCV about subsamplings that simplejpeg does not know (4:1:0, some CMYK).

    OpenCV's libjpeg writes its first warning to standard error, which all threads of a process
    share: it has one of its own, a quarter of a second for one of these rare images.
    """
    asked = subprocess.run([sys.executable, "-I", "-c", _OPENCV], input=data, capture_output=True)
    lines = asked.stderr.decode(errors="replace").splitlines()
    return next((line for line in lines if "JPEG" in line), "" if not asked.returncode else UNTOLD)


def refuse_scans(data: bytes, n_pixels: int) -> None:
    """Refuse a file whose scans would take minutes, or do not make up the image; decodes none.

    Each passes over all pixels, and 2,000 of them fit in 161 KB. A file that is cut between two
    scans, and closed with EOI, decodes to a blurred or colourless image without any warning.
    """
    # So small that no number of scans takes long, and most files are: the quick look will do.
    if n_pixels * len(data) < MAX_SCANNED and _has_one_scan(data):
        return
    if _begins_with_its_only_scan(data):
        return
    limit = max(FEW_SCANS, min(MAX_SCANS, MAX_SCANNED // max(n_pixels, 1)))
    found = list(islice(pieces(data), MAX_PIECES + 1))
    if len(found) > MAX_PIECES:
        raise ImageError(f"more than {MAX_PIECES:,} segments and scans; encode it again")
    n_scans = sum(marker == SOS for marker, _ in found)
    if n_scans > limit:
        raise ImageError(
            f"{n_scans:,} scans over {n_pixels:,} pixels, over the limit of {limit}: "
            "decoding would take minutes; encode it again"
        )
    if _lacks_scans(found):
        raise ImageError(f"truncated or damaged, {len(data):,} bytes: scans are missing")


def _has_one_scan(data: bytes) -> bool:
    """Return whether a file looks sequential with one scan, as nearly all do; takes 1 us."""
    if data[2:4] != b"\xff\xe0" or data[20:22] != b"\xff\xdb":  # else, a thumbnail may come first
        return False
    frame = data.find(b"\xff\xc0", 20)
    scan = data.find(b"\xff\xda", frame)
    return 0 < frame < scan < len(data) - 4 and data[frame + 9] == data[scan + 4]


def _begins_with_its_only_scan(data: bytes) -> bool:
    """Return whether a sequential file's first scan has all components; takes 3 us at any size.

    libjpeg then reads no other scan: it ends with an error where another one begins (jdinput.c).
    Segments are stepped over by their length, so that none can hold a frame for show.
    """
    at, n_components = 2, 0
    for _ in range(MAX_HEADER):
        if at + 9 >= len(data) or data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == SOS:
            return 0 < n_components == data[at + 4]
        if marker in SEQUENTIAL:
            n_components = data[at + 9]
        elif marker not in TABLES and not (APP0 <= marker <= APP15 or marker == COM):
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _lacks_scans(found: Sequence[tuple[int, bytes]]) -> bool:
    """Return whether a component has no scan, or a bit of its coefficients is still to come."""
    components: set[int] = set()
    missing_bits: dict[tuple[int, int], int] = {}  # of a component's coefficient
    for marker, piece in found:
        if marker in FRAMES and len(piece) > 9:
            components |= set(piece[10 : 10 + 3 * piece[9] : 3])
        elif marker == SOS and len(piece) > 4 and len(piece) >= 8 + 2 * piece[4]:
            n = piece[4]
            first, last, approximation = piece[5 + 2 * n : 8 + 2 * n]
            for component in piece[5 : 5 + 2 * n : 2]:
                for coefficient in range(first, min(last, 63) + 1):
                    missing_bits[component, coefficient] = approximation & 15
    seen = {component for component, _ in missing_bits}
    return bool(components - seen) or any(missing_bits.values())
