"""One vocabulary of body sites over all archives, at two levels.

Source: the raw values of each archive's metadata (`SOURCES`); ISIC 2019's are the finest, the six
of SIIM-ISIC 2020 the coarse level (`coarse_site`). Missing stays missing.
Decision: the standard column `site` holds the canonical value. For ISIC 2019, SIIM 2020 and ISIC
2024 it equals the raw one; MILK10k's raw value stays in `milk10k_site`. A value that nobody
published is kept as it stands, and the index notes it.
Trap: SIIM's `torso` and MILK10k's `trunk` do not say front or back, and MILK10k's `hand` and `foot`
include palms and soles: archives are comparable at the coarse level only.
"""

from collections.abc import Sequence

import pandas as pd

from isic.errors import first_five

CANONICAL = (
    "anterior torso",
    "posterior torso",
    "lateral torso",
    "torso",
    "upper extremity",
    "lower extremity",
    "head/neck",
    "hand",
    "foot",
    "palms/soles",
    "oral/genital",
    "genital",
)
_COARSE = {
    "anterior torso": "torso",
    "posterior torso": "torso",
    "lateral torso": "torso",
    "hand": "upper extremity",
    "foot": "lower extremity",
    "genital": "oral/genital",
}


def _pairs(text: str) -> dict[str, str]:
    """`raw = canonical; ...`, or the raw value alone where it is canonical."""
    parts = [[word.strip() for word in part.split("=")] for part in text.split(";")]
    return {part[0]: part[-1] for part in parts}


# archive -> its raw values and the canonical name of each
SOURCES: dict[str, dict[str, str]] = {
    # ISIC_2019_{Training,Test}_Metadata.csv, anatom_site_general
    "isic2019": _pairs(
        "anterior torso; lower extremity; head/neck; upper extremity; posterior torso; "
        "palms/soles; oral/genital; lateral torso"
    ),
    # train.csv and test.csv, anatom_site_general_challenge
    "isic2020": _pairs(
        "torso; lower extremity; upper extremity; head/neck; palms/soles; oral/genital"
    ),
    # train-metadata.csv, anatom_site_general
    "isic2024": _pairs(
        "posterior torso; lower extremity; anterior torso; upper extremity; head/neck"
    ),
    # MILK10k_{Training,Test}_Metadata.csv, site
    "milk10k": _pairs(
        "trunk = torso; head_neck_face = head/neck; lower_extremity = lower extremity; "
        "upper_extremity = upper extremity; hand; foot; genital"
    ),
    # The ISIC Archive's anatom_site_1..3 (github.com/ImageMarkup/isic, AnatomSiteEnum): the names
    # that say more than the level above them
    "isic_archive": _pairs(
        "Head and neck = head/neck; Trunk = torso; Anterior trunk = anterior torso; "
        "Lateral trunk = lateral torso; Posterior trunk = posterior torso; "
        "Upper extremity = upper extremity; Hand = hand; Palm of hand = palms/soles; "
        "Lower extremity = lower extremity; Foot = foot; Sole of foot = palms/soles; "
        "Anogenital region = oral/genital; Genital region = genital"
    ),
    # HAM10000_metadata, localization (doi 10.1038/sdata.2018.161)
    "ham10000": _pairs(
        "abdomen = anterior torso; chest = anterior torso; back = posterior torso; trunk = torso; "
        "face = head/neck; scalp = head/neck; ear = head/neck; neck = head/neck; hand; foot; "
        "acral = palms/soles; genital; upper extremity; lower extremity"
    ),
}
_NAMES = {raw.lower(): name for values in SOURCES.values() for raw, name in values.items()}


def canonical_site(raw: pd.Series) -> tuple[pd.Series, list[str]]:
    """Name each raw value canonically; also a note of values that no archive has published."""
    known = {value: _NAMES.get(str(value).strip().lower()) for value in raw.dropna().unique()}
    if all(name == value for value, name in known.items()):
        return raw, []
    unknown = [value for value, name in known.items() if name is None]
    names = {value: name or value for value, name in known.items()}
    note = f"site holds {len(unknown)} values that no archive has published, kept as they are: "
    return raw.map(names), [note + first_five(map(repr, unknown))] if unknown else []


def deepest_site(levels: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The deepest level of a hierarchy that has a canonical name, as it stands; null without one.

    columns: Of the levels, broad ones first; those that are not there are empty.
    """
    site = pd.Series(None, index=levels.index, dtype="object")
    for column in (c for c in columns if c in levels):
        named = levels[column].isin(list(SOURCES["isic_archive"]))
        site = site.mask(named, levels[column])
    return site


def coarse_site(site: pd.Series) -> pd.Series:
    """Bring canonical sites to the six of SIIM-ISIC 2020; other values stay as they are."""
    return site.map({value: _COARSE.get(value, value) for value in site.dropna().unique()})
