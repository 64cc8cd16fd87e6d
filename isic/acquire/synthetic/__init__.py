"""The generated archives, one writer each: what `conf/generator/*.yaml` names.

Every writer takes the root, `n_images` (of MILK10k: lesions), `n_test`, `seed`, `size_range` (the
side of square pictures in px, or its lowest and highest value) and `images`; the same arguments and
library versions give the same bytes.
Trap: labels and pictures are made up; a score on them says that the code works, nothing more.
"""

from isic.acquire.synthetic.isic2019 import write_isic2019
from isic.acquire.synthetic.isic2020 import write_isic2020
from isic.acquire.synthetic.isic2024 import default_patients, default_positives, write_isic2024
from isic.acquire.synthetic.milk10k import write_milk10k

ARCHIVES = ("isic2019", "isic2020", "isic2024", "milk10k")
"""Those that can be generated, by the names of `conf/data`."""

__all__ = [
    "ARCHIVES",
    "default_patients",
    "default_positives",
    "write_isic2019",
    "write_isic2020",
    "write_isic2024",
    "write_milk10k",
]
