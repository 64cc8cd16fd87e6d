"""Ids that only their spelling tells apart are refused by every reader until a key says more."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.index import folder, isic2019, isic2020, isic2024, merged, milk10k
from isic.index.extra import with_extra
from isic.index.id_spellings import IdSpellings, key_of, spelled_alike
from isic.split import SplitOptions, make_split
from isic.split.groups import group_of
from tests.index.small_archives import edit, read, write_isic2019, write_isic2020, write_milk10k

ARCHIVES = {"isic2019": write_isic2019, "isic2020": write_isic2020, "milk10k": write_milk10k}
ALIKE = {
    "case": ("IP_123", "ip_123"),
    "case beyond ASCII": ("Ä-1", "ä-1"),
    "blanks inside": ("IP 123", "IP  123"),
    "a blank beside a sign": ("IP_ 123", "IP_123"),
    "a blank of no width": ("IP_123\u200b", "IP_123"),
    "a blank that does not break": ("IP\u00a0x", "IP x"),
    "digits of full width": ("IP_\uff11\uff12", "IP_12"),
    "letters of full width": ("\uff29P_12", "IP_12"),
    "accents in two parts": ("Jos\u00e9", "Jose\u0301"),
    "leading zeros": ("00123", "123"),
    "leading zeros of a part": ("IP_0123", "IP_123"),
    "a number read as a float": ("123.0", "123"),
    "all of it": (" ip_00\uff11 ", "IP_1"),
}
DIFFERENT = [
    ("IP_12", "IP_13"),
    ("1.05", "1.5"),
    ("1 23", "12 3"),
    ("10", "100"),
    ("0", "00x"),
    ("A-1", "A_1"),
    ("123.5", "123"),
]


@pytest.mark.parametrize(("a", "b"), ALIKE.values(), ids=ALIKE)
def test_spellings_of_one_id(a, b):
    assert spelled_alike([pd.Series([a, "other", None]), pd.Series([b, a])]) == [sorted([a, b])]
    one = IdSpellings("normalised").take("patient_id", pd.Series([a, None, b]))
    assert one.dropna().tolist() == [a, a]
    exact = IdSpellings("exact")
    assert exact.take("patient_id", pd.Series([a, b])).tolist() == [a, b]
    assert exact.faults() == []


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_ids_that_are_two(a, b):
    assert spelled_alike([pd.Series([a, b])]) == []


def test_whole_columns_give_what_single_ids_give():
    rng = np.random.default_rng(0)
    letters = np.array(list("aAbB0011239_- .\uff11\u00e9"))
    ids = pd.Series(["".join(rng.choice(letters, rng.integers(1, 6))) for _ in range(4000)])
    unique = pd.Series(ids.unique())
    alike = unique.groupby(unique.map(key_of)).apply(sorted)
    assert spelled_alike([ids]) == sorted(g for g in alike if len(g) > 1)


def test_ids_of_one_form_are_told_apart_without_their_keys(monkeypatch):
    ids = [pd.Series([f"ISIC_{i:07d}" for i in range(start, start + 50)]) for start in (0, 40)]
    monkeypatch.setattr("isic.index.id_spellings.keys_of", None)  # would be called
    assert spelled_alike(ids) == []
    for other in ("isic_0000001", "ISIC_000001", "ISIC_000000x", "ISIC_00000012"):
        with pytest.raises(TypeError):
            spelled_alike([*ids, pd.Series([other])])


def test_another_choice_is_refused():
    with pytest.raises(ConfigError, match="data.index.ids: expected exact or normalised, got 'x'"):
        IdSpellings("x")


# archive -> reader, table, column of groups
READERS = {
    "isic2019": (isic2019, "ISIC_2019_Training_Metadata.csv", "lesion_id"),
    "isic2020": (isic2020, "train.csv", "patient_id"),
    "milk10k": (milk10k, "MILK10k_Training_Metadata.csv", "lesion_id"),
}


@pytest.fixture(params=READERS)
def changed(request, tmp_path):
    """An archive whose first group is spelled in two ways, its reader, and the two spellings."""
    reader, table, column = READERS[request.param]
    root = ARCHIVES[request.param](tmp_path / "archive")
    cells = read(root / table)[column]
    first = next(c for c in cells if (cells == c).sum() > 1)
    other = first.lower() if first.lower() != first else f"0{first}"
    edit(root / table, column, other, int(np.flatnonzero(cells == first)[0]))
    return reader, root, (first, other), column


def test_a_reader_refuses_two_spellings_and_takes_them_as_told(changed):
    reader, root, (first, other), column = changed
    with pytest.raises(DataError) as error:
        reader.build_index(root)
    assert repr(first) in str(error.value) and repr(other) in str(error.value)
    assert "data.index.ids=normalised" in str(error.value)
    one = reader.build_index(root, ids="normalised")
    assert one.table[column].isin([first, other]).sum() > 1
    assert one.table[column][one.table[column].isin([first, other])].nunique() == 1
    assert any("data.index.ids=normalised" in note for note in one.notes)


def test_isic2020_keeps_patients_apart_as_told(tmp_path):
    root = ARCHIVES["isic2020"](tmp_path / "archive")
    patient = read(root / "train.csv")["patient_id"].iloc[0]
    edit(root / "train.csv", "patient_id", patient.lower(), 1)  # the first has a duplicate
    table = isic2020.build_index(root, ids="exact").table
    assert {patient, patient.lower()} <= set(table["patient_id"].dropna())


def test_tables_of_one_archive_are_compared(tmp_path):
    """A ground truth and its metadata that spell an image in two ways would not be joined."""
    root = ARCHIVES["isic2019"](tmp_path / "archive")
    image = edit(root / "ISIC_2019_Training_Metadata.csv", "sex", "male", 3)
    edit(root / "ISIC_2019_Training_Metadata.csv", "image", image.lower(), 3)
    with pytest.raises(DataError, match=f"'{image}' and '{image.lower()}'"):
        isic2019.build_index(root)
    table = isic2019.build_index(root, ids="normalised").table
    assert len(table[table["image_id"] == image]) == 1


def test_the_pairs_of_duplicates_are_compared(tmp_path):
    root = ARCHIVES["isic2020"](tmp_path / "archive")
    path = root / "ISIC_2020_Training_Duplicates.csv"
    second = read(path)["image_name_2"].iloc[0]
    edit(path, "image_name_2", second.lower())
    with pytest.raises(DataError, match=f"'{second}' and '{second.lower()}'"):
        isic2020.build_index(root)
    marked = isic2020.build_index(root, ids="normalised").table.set_index("image_id")
    assert pd.notna(marked.loc[second, "duplicate_of"])


def test_isic2024_compares_patients(archive_copy):
    patient = read(archive_copy / "train-metadata.csv")["patient_id"].iloc[0]
    edit(archive_copy / "train-metadata.csv", "patient_id", f"{patient[:3]}0{patient[3:]}")
    with pytest.raises(DataError, match=f"'{patient[:3]}0{patient[3:]}' and '{patient}'"):
        isic2024.build_index(archive_copy)


def folder_of(root, lines, header="image,dx,patient"):
    (root / "images").mkdir(parents=True)
    for line in lines:
        (root / "images" / f"{line.split(',')[0]}.png").touch()
    (root / "metadata.csv").write_text("\n".join([header, *lines]) + "\n")
    return root


def test_a_folder_groups_by_patients_as_told(tmp_path):
    classes = ["nevus", "melanoma"]
    lines = [f"q{i},{classes[i % 2]},{'IP' if i % 4 else 'ip'}_{i // 8}" for i in range(64)]
    root = folder_of(tmp_path / "data", lines)
    with pytest.raises(DataError, match="8 patient_ids are spelled in several ways"):
        folder.build_index(root)
    for ids, n in (("normalised", 8), ("exact", 16)):
        assert group_of(folder.build_index(root, ids=ids).table).nunique() == n


def test_folds_by_hospital_take_two_spellings_as_told(tmp_path):
    classes = ["nevus", "melanoma"]
    places = ["Clinic A", "clinic a", "Clinic B"]
    lines = [f"q{i},{classes[i % 2]},{i},{places[i // 2 % 3]}" for i in range(48)]
    root = folder_of(tmp_path / "data", lines, header="image,dx,patient,attribution")
    options = SplitOptions(method="hospital", n_folds=None, seed=None, overlap=False)
    for ids, n_folds in (("normalised", 2), ("exact", 3)):
        index = folder.build_index(root, ids=ids)
        split = make_split(index, options, runs_root=tmp_path / ids, cache_root=tmp_path)
        assert split.n_folds == n_folds
    index = folder.build_index(root)  # folds by patient see no hospital
    with pytest.raises(DataError, match="'Clinic A' and 'clinic a'"):
        make_split(index, options, runs_root=tmp_path / "runs", cache_root=tmp_path)


def test_images_of_two_spellings_are_two_where_each_has_a_file(tmp_path):
    lines = ["a1,nevus,1", "A1,melanoma,2", "b,nevus,3"]
    root = folder_of(tmp_path / "data", lines)
    for ids in (None, "normalised", "exact"):
        assert len(folder.build_index(root, ids=ids).table) == 3
    (root / "metadata.csv").write_text("\n".join(["image,dx,patient", *lines, "B,nevus,4", ""]))
    (root / "images" / "b.png").unlink()
    with pytest.raises(DataError, match="'B' and 'b'"):
        folder.build_index(root)
    with pytest.raises(DataError, match="named twice, in two spellings: 'B'"):
        folder.build_index(root, ids="normalised")
    assert len(folder.build_index(root, ids="exact").table) == 4


def test_a_number_that_pandas_made_a_float_is_one_patient(tmp_path):
    classes = ["nevus", "melanoma"]
    lines = [f"q{i},{classes[i % 2]},{i // 2}{'.0' if i % 2 else ''}" for i in range(8)]
    with pytest.raises(DataError, match="'0' and '0.0'"):
        folder.build_index(folder_of(tmp_path / "data", lines))


def test_patients_of_merged_archives_are_compared(tmp_path):
    for name in ("isic2020", "isic2019"):
        ARCHIVES[name](tmp_path / name)
    lesion = "BCN_1"
    path = tmp_path / "isic2020" / "ISIC_2020_Training_GroundTruth_v2.csv"
    if not path.exists():
        frame = read(tmp_path / "isic2020" / "train.csv").assign(lesion_id="x")
        frame.to_csv(path, index=False)
    edit(path, "lesion_id", lesion.lower())
    build = partial(merged.build_index, tmp_path, parts=["isic2020", "isic2019"])
    with pytest.raises(DataError, match="'BCN_1' and 'bcn_1'"):
        build()
    table = build(ids="normalised").table
    assert table.loc[table["lesion_id"] == "bcn_1", "archive"].nunique() == 2


def test_extra_rows_are_compared_with_the_archive(archive32, tmp_path):
    index = isic2024.build_index(archive32)
    patient = index.table["patient_id"].iloc[0]
    extra = tmp_path / "extra.csv"
    extra.write_text(f"image,label,patient_id\nx.jpg,malignant,{patient.lower()}\n")
    with pytest.raises(DataError, match=f"'{patient}' and '{patient.lower()}'"):
        with_extra(index, extra)
    one = with_extra(isic2024.build_index(archive32, ids="normalised"), extra).table
    assert one.loc[one["external"], "patient_id"].tolist() == [patient]
    image = index.table["image_id"].iloc[0]
    extra.write_text(f"image,label,parent_id\nx.jpg,malignant,{image.lower()}\n")
    with pytest.raises(DataError, match=f"'{image}' and '{image.lower()}'"):
        with_extra(index, extra)


@pytest.mark.parametrize("name", ["isic2019", "isic2020", "isic2024", "milk10k"])
def test_official_ids_are_no_spellings_of_one_another(real_root, name):
    reader = {"isic2019": isic2019, "isic2020": isic2020, "isic2024": isic2024, "milk10k": milk10k}
    plain = reader[name].build_index(real_root / name)
    told = reader[name].build_index(real_root / name, ids="normalised")
    pd.testing.assert_frame_equal(plain.table, told.table)
