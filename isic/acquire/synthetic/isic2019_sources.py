"""What a generated ISIC 2019 archive is drawn from: collections, classes, ages, sites, gaps.

Source: counted in the official ground truth and metadata (25,331 train and 8,238 test images);
long tails of lesion sizes are binned. Unit: images, unless said otherwise; age in years.
Trap: AK, BCC, SCC, DF and VASC exist in two of the four collections only, each with its own frame.
"""

from dataclasses import dataclass

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
TRAIN_IMAGES = 25_331


def _by_class(*values: int) -> dict[str, int]:
    return dict(zip(CLASSES, values, strict=True))


@dataclass(frozen=True)
class Source:
    """One of the collections that the year was put together from.

    numbers: Range of its image ids. frame: Width and height in px. classes: Images of each class.
    lesions: Lesions by how many images they have; empty: it has no lesion ids. lesion: First number
    of these. downsampled: Share of such names. gaps: Images by what is missing in their row.
    """

    numbers: tuple[int, int]
    frame: tuple[int, int]
    classes: dict[str, int]
    lesions: dict[int, int]
    lesion: int
    downsampled: float
    gaps: dict[str, int]


SOURCES = {
    "BCN": Source(
        numbers=(34_321, 73_255),
        frame=(1024, 1024),
        classes=_by_class(2857, 4206, 2809, 737, 1138, 124, 111, 431, 0),
        lesions={
            1: 488,
            2: 1069,
            3: 815,
            4: 433,
            5: 243,
            6: 194,
            7: 112,
            9: 113,
            12: 71,
            18: 34,
            31: 4,
        },
        lesion=1,
        downsampled=0.0,
        gaps={"site": 156, "age sex": 57, "age sex site": 17},
    ),
    "HAM": Source(
        numbers=(24_306, 34_321),
        frame=(600, 450),
        classes=_by_class(1113, 6705, 514, 130, 1099, 115, 142, 197, 0),
        lesions={1: 5514, 2: 1423, 3: 490, 4: 34, 5: 5, 6: 4},
        lesion=0,
        downsampled=0.0,
        gaps={"site": 1638, "age sex site": 47, "age": 5},
    ),
    "MSK4": Source(
        numbers=(12_500, 14_560),
        frame=(1024, 768),
        classes=_by_class(215, 415, 0, 0, 189, 0, 0, 0, 0),
        lesions={1: 786, 2: 13, 3: 1, 4: 1},
        lesion=10_001,
        downsampled=816 / 819,
        gaps={"site": 15},
    ),
    "none": Source(
        numbers=(0, 12_500),
        frame=(1022, 767),
        classes=_by_class(337, 1549, 0, 0, 198, 0, 0, 0, 0),
        lesions={},
        lesion=0,
        downsampled=1258 / 2084,
        gaps={"site": 605, "age sex site": 151, "age sex": 112, "age": 46},
    ),
}
TEST = Source(
    numbers=SOURCES["BCN"].numbers,
    frame=(1024, 1024),
    classes=_by_class(1327, 2495, 975, 374, 660, 91, 104, 165, 2047),
    lesions={},
    lesion=0,
    downsampled=0.0,
    gaps={"site": 489, "age sex": 160, "age sex site": 166, "sex": 13},
)
ALL = {**SOURCES, "test": TEST}
AGES = _by_class(61, 45, 66, 67, 64, 52, 53, 71, 58)
SITES = (
    *("anterior torso", "lower extremity", "head/neck", "upper extremity", "posterior torso"),
    *("palms/soles", "oral/genital", "lateral torso"),
)
# Percent of a class at each of SITES, as counted in the train metadata.
SITE_SHARES = {
    "MEL": (30, 18, 20, 17, 10, 4.6, 0.4, 0.3),
    "NV": (34, 27, 7, 12, 18, 1.6, 0.2, 0.3),
    "BCC": (34, 14, 35, 11, 6, 0, 0, 0),
    "AK": (11, 8, 71, 9, 0.5, 0.7, 0, 0),
    "BKL": (19, 18, 43, 10, 10, 0.3, 0.6, 0.3),
    "DF": (18, 59, 0, 22, 1, 0, 0, 0),
    "VASC": (35, 26, 16, 10, 10, 1.4, 0.9, 0),
    "SCC": (18, 29, 28, 19, 4, 2, 0, 0),
    "UNK": (30, 20, 30, 10, 4, 5, 1, 0),
}
