"""Leaks that no single column shows: group sizes, features made of them, pairs of columns."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isic.audit.check import check_archive
from isic.audit.features import audited_features
from isic.audit.findings import NOTE, ODD
from isic.audit.pairs import coarse
from isic.audit.shortcuts import check_shortcuts
from isic.features.lesion_shape import LesionShape
from isic.features.metadata import Metadata
from isic.features.patient_context import PatientContext
from isic.index.schema import Index

Columns = dict[str, object]
Plant = Callable[[np.random.Generator, np.ndarray], Columns]


def changed(index: Index, **columns: object) -> Index:
    return dataclasses.replace(index, table=index.table.assign(**columns))


def odd(index: Index, features: pd.DataFrame | None = None) -> str:
    part = check_shortcuts(index, None, features)
    return "\n".join(f.text for f in part.findings if f.state == ODD)


@pytest.fixture
def sick(whole: Index) -> np.ndarray:
    """Whether each row is malignant."""
    return (whole.table["target"] == 1).fillna(False).to_numpy(bool)


@pytest.fixture
def alone(whole: Index, sick: np.ndarray) -> Index:
    """Every malignant row has a patient of its own, as the benign have not."""
    ids = pd.Series([f"IP_{9_000_000 + i}" for i in range(len(sick))])
    few = [f"IP_{8_000_000 + i % 60}" for i in range(len(sick))]
    return changed(whole, patient_id=ids.where(sick, few))


def test_the_size_of_a_patient_is_named(alone: Index) -> None:
    found = odd(alone)
    assert "how the data came together" in found
    assert "rows of a patient (malignant 1.00)" in found


def test_features_made_of_groups_are_named(alone: Index, tmp_path: Path) -> None:
    families = {"context": PatientContext(counts=False, sums=(), summary=False)}
    features, unmade = audited_features(alone, families, cache_root=tmp_path)
    assert unmade == []
    found = check_shortcuts(alone, None, features).facts["columns"]
    assert found["clin_size_long_diam_mm_patient_z / known"]["auc"] > 0.99
    assert "tbp_lv_A_patient_z / known" not in found, "one of many with the same gaps"


def test_lesions_that_only_the_malignant_have_several_rows_of(
    whole: Index, sick: np.ndarray
) -> None:
    info = dataclasses.replace(whole.info, train_only_columns=())
    lesion = [f"L{i // 3}" if s else f"B{i}" for i, s in enumerate(np.sort(sick))]
    table = whole.table.drop(columns=[c for c in whole.table if c.startswith(("iddx", "mel_"))])
    table = table.iloc[np.argsort(sick, kind="stable")].reset_index(drop=True)
    index = dataclasses.replace(
        whole, table=table.assign(lesion_id=lesion, patient_id=None), info=info
    )
    assert "rows of a lesion (malignant" in odd(index)


# Each column alone has an AUC of about 0.5, or 0.75 where they add up.
PLANTED: dict[str, Plant] = {
    "exclusive or": lambda rng, sick: {
        "u": (u := rng.integers(0, 2, len(sick))),
        "v": u ^ sick,
    },
    "exclusive or of words": lambda rng, sick: {
        "u": np.array(["left", "right"])[u := rng.integers(0, 2, len(sick))],
        "v": np.array(["new", "old"])[u ^ sick],
    },
    "exclusive or of signs": lambda rng, sick: {
        "u": (u := rng.normal(size=len(sick))),
        "v": np.abs(rng.normal(size=len(sick))) * np.sign(u) * np.where(sick, -1, 1),
    },
    "sum": lambda rng, sick: {
        "u": (u := rng.normal(size=len(sick))),
        "v": np.where(sick, 0.8, 0) - u + rng.normal(scale=0.3, size=len(sick)),
    },
    "difference of nearly equal numbers": lambda rng, sick: {
        "u": (u := rng.uniform(0, 1000, len(sick))),
        "v": 2 * u + np.where(sick, 3, 0) + rng.normal(scale=0.5, size=len(sick)),
    },
    "what is missing together": lambda rng, sick: {
        "u": pd.Series(rng.normal(size=len(sick))).where(u := rng.random(len(sick)) < 0.5),
        "v": pd.Series(rng.normal(size=len(sick))).where(u ^ sick),
    },
    "a word and a number": lambda rng, sick: {
        "u": np.array(list("abcdefgh"))[u := rng.integers(0, 8, len(sick))],
        "v": (u % 2 * 2 - 1) * np.where(sick, 1, -1) * rng.uniform(1, 2, len(sick)),
    },
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_pair_is_named(whole: Index, sick: np.ndarray, plant: Plant) -> None:
    found = odd(changed(whole, **plant(np.random.default_rng(0), sick)))
    assert "two columns tell a class together (AUC): " in found
    named = found.partition("two columns")[2]
    assert ("u with v (malignant" in named) or ("u being known with v being known" in named)
    assert "alone" not in found.partition("two columns")[0]


def test_a_pair_among_many_columns_that_tell_nothing(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    noise = {f"noise{i}": rng.normal(size=len(sick)) for i in range(60)}
    u = rng.integers(0, 2, len(sick))
    found = odd(changed(whole, **noise, u=u, v=u ^ sick))
    assert "u with v (malignant 1.00)" in found
    assert "noise" not in found


@pytest.mark.parametrize("seed", range(4))
def test_columns_of_noise_are_no_pair(whole: Index, sick: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise: Columns = {f"n{i}": rng.normal(size=len(sick)) for i in range(40)}
    noise |= {f"w{i}": rng.choice(list("abcdefghijklmnopqrst"), len(sick)) for i in range(20)}
    assert odd(changed(whole, **noise)) == ""


def test_texts_that_differ_from_row_to_row_are_looked_at(whole: Index, sick: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("0123456789abcdef"))
    tails = ["".join(rng.choice(letters, 12)) for _ in sick]
    begins = [("89abcdef" if s else "01234567")[i % 8] for i, s in enumerate(sick)]
    hashes = [a + b for a, b in zip(begins, tails, strict=True)]
    assert "first letter of code (malignant 1.00)" in odd(changed(whole, code=hashes))
    longer = [t + "00" * int(s) for t, s in zip(tails, sick, strict=True)]
    assert "length of code (malignant 1.00)" in odd(changed(whole, code=longer))
    assert odd(changed(whole, code=tails)) == ""


def test_numbers_of_ids_in_the_order_of_the_class_are_named(whole: Index, sick: np.ndarray) -> None:
    number = np.argsort(np.argsort(~sick, kind="stable"))
    patient = whole.table["patient_id"]
    first = pd.Series(number).groupby(patient.to_numpy()).transform("min")
    ids = [f"ISIC_{n:07d}" for n in number]
    assert "number of image_id (malignant 1.00)" in odd(changed(whole, image_id=ids))
    assert "number of patient_id" in odd(changed(whole, patient_id="P" + first.astype(str)))


def test_coarse_codes_keep_order_frequency_and_what_is_missing() -> None:
    number = np.r_[np.zeros(50), np.arange(1, 41).repeat(20)].astype(int)
    placed = coarse(number, 6, ordered=True)
    assert (np.diff(placed) >= 0).all() and set(placed) == set(range(6))
    assert set(placed[:50]) == {0}
    assert np.bincount(placed)[1:].min() >= 140
    words = np.r_[np.full(30, 7), np.full(20, 3), np.arange(10, 40)]
    placed = coarse(words, 4, ordered=False)
    assert len(set(placed[:30])) == len(set(placed[30:50])) == 1
    assert placed[0] != placed[30]
    assert coarse(np.array([5, 0, 9]), 4, ordered=True).tolist() == [1, 0, 2]


def test_pairs_of_lesser_columns_are_chosen_by_a_part_of_the_rows_and_said(
    whole: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isic.audit.pairs.SCREEN_ROWS", 300)
    part = check_shortcuts(whole)
    assert part.facts["rows_screened"] == 300
    said = "\n".join(f.text for f in part.findings)
    assert "tried on all 600 rows, others chosen by 300 of them" in said


def test_the_check_makes_the_features_of_a_stack(archive600: Path, tmp_path: Path) -> None:
    from isic.index.isic2024 import build_index

    families = {"shape": LesionShape(), "none": Metadata(("no_such_column",))}
    report = check_archive(
        build_index(archive600), images=False, overlap=False, families=families, cache_root=tmp_path
    )
    assert "lesion_severity_index / value" in report.parts["shortcuts"].facts["columns"]
    (note,) = [f for f in report.findings if f.subject == "features"]
    assert note.state == NOTE and "none cannot be made" in note.text
    assert "features" in report.seconds


def test_features_of_lesions_are_those_of_their_images(milk32: Path, tmp_path: Path) -> None:
    from isic.index.milk10k import build_index

    index = build_index(milk32)
    features, _ = audited_features(index, {"own": Metadata(("age",))}, cache_root=tmp_path)
    assert features is not None and len(features) == len(index.table)
    first = index.table.groupby("lesion_id")["age"].transform("first").to_numpy()
    np.testing.assert_array_equal(features["age"].to_numpy(), first.astype(np.float32))


@pytest.mark.parametrize("name", ["isic2019", "isic2020", "isic2024", "milk10k"])
def test_real_archives_have_no_new_shortcut(real_root: Path, name: str) -> None:
    """Neither sizes of groups nor pairs of columns tell a class of the official tables."""
    reader = importlib.import_module(f"isic.index.{name}")
    found = odd(reader.build_index(real_root / name))
    assert "together" not in found.replace("data came together", "")
    assert "rows of" not in found and "lesions of" not in found
