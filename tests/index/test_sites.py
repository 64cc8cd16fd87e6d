"""Body sites: every published value has a canonical name, and every name a coarse one."""

import pandas as pd
import pytest

from isic.index.sites import CANONICAL, SOURCES, canonical_site, coarse_site, deepest_site

COARSE = set(SOURCES["isic2020"])


@pytest.mark.parametrize("archive", sorted(SOURCES))
def test_every_published_value_is_canonical(archive: str) -> None:
    raw = pd.Series([*SOURCES[archive], None])
    site, notes = canonical_site(raw)
    assert notes == []
    assert set(site.dropna()) <= set(CANONICAL)
    assert site.isna().tolist() == raw.isna().tolist()
    assert set(coarse_site(site).dropna()) <= COARSE


def test_every_canonical_name_is_its_own_and_has_a_coarse_one() -> None:
    names = pd.Series(CANONICAL)
    assert canonical_site(names)[0].tolist() == list(CANONICAL)
    assert set(coarse_site(names)) == COARSE


def test_the_deepest_level_that_has_a_name() -> None:
    levels = pd.DataFrame(
        [
            ("Trunk", "Posterior trunk", "Upper back"),
            ("Upper extremity", "Hand", "Palm of hand"),
            ("Lower extremity", "Thigh", None),
            ("Anogenital region", "Genital region", "Vulva"),
            (None, None, None),
        ],
        columns=["anatom_site_1", "anatom_site_2", "anatom_site_3"],
    )
    columns = [f"anatom_site_{n}" for n in range(1, 6)]
    site, notes = canonical_site(deepest_site(levels, columns))
    assert notes == []
    assert site.fillna("").tolist() == [
        "posterior torso",
        "palms/soles",
        "lower extremity",
        "genital",
        "",
    ]


def test_unknown_values_stay_and_are_named() -> None:
    site, notes = canonical_site(pd.Series(["trunk", "Torso ", "left ear", None]))
    assert site.tolist()[:3] == ["torso", "torso", "left ear"]
    assert len(notes) == 1
    assert "1 values" in notes[0]
    assert "'left ear'" in notes[0]
    assert coarse_site(site).tolist()[:3] == ["torso", "torso", "left ear"]


def test_the_coarse_level_of_what_archives_tell_apart() -> None:
    raw = pd.Series(["anterior torso", "posterior torso", "hand", "foot", "genital", "head/neck"])
    assert coarse_site(raw).tolist() == [
        "torso",
        "torso",
        "upper extremity",
        "lower extremity",
        "oral/genital",
        "head/neck",
    ]
