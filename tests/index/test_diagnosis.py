"""The taxonomy: every raw label of every archive has one meaning, as the real files pair them."""

import pandas as pd
import pytest

from isic.acquire.synthetic.diagnoses import FIVE_LEVELS, MALIGNANT, NAMED
from isic.errors import DataError
from isic.index.diagnosis import (
    malignancy,
    meaning,
    possible_classes,
    shared_class,
    shared_classes,
    unknown_labels,
)
from isic.index.diagnosis_table import MILK10K_FULL, NAMES, SHARED, TREE
from isic.index.isic2020 import DIAGNOSES


def text(frame_path):
    return pd.read_csv(frame_path, dtype=str)


def every_line() -> pd.DataFrame:
    """Each label of each block, as the reader of its archive understands it."""
    # a name without a reader of its own is looked up among the words of all
    labels = [(a, line) for a, (_, text) in NAMES.items() for line in text.strip().splitlines()]
    labels += [("isic2024", line) for line in TREE.strip().splitlines()]
    rows = []
    for archive, line in labels:
        raw = line.strip().rpartition(" = ")[0]
        found = meaning(archive, raw)
        assert found is not None
        rows.append({"archive": archive, "raw": raw, **found._asdict()})
    return pd.DataFrame(rows).astype({"malignant": "Int64"})


def test_every_line_has_a_shared_class_a_sign_and_a_source():
    table = every_line()
    assert set(table["shared"]) == set(SHARED)
    assert set(table["malignant"].dropna()) == {0, 1}
    assert table["source"].str.len().min() > 20
    assert not table.duplicated(["archive", "raw"]).any()


def test_malignant_classes_are_malignant_in_every_archive():
    table = every_line().dropna(subset=["malignant"])
    signs = table[~table["shared"].isin(["UNK"])].groupby("shared")["malignant"].unique()
    assert {name: list(sign) for name, sign in signs.items()} == {
        **{name: [1] for name in ("MEL", "BCC", "SCC", "MAL_OTH")},
        **{name: [0] for name in ("NV", "AK", "BKL", "DF", "VASC", "INF", "BEN_OTH")},
    }


def test_isic2020_reads_its_nine_strings_as_its_own_reader_does():
    assert {raw: shared_class("isic2020", raw) for raw in DIAGNOSES} == DIAGNOSES


@pytest.mark.parametrize(
    ("archive", "raw", "shared", "malignant"),
    [
        ("isic2019", "AK", "AK", 0),
        ("isic2019", "UNK", "UNK", None),
        ("isic2020", "unknown", "UNK", 0),
        ("milk10k", "SCCKA", "SCC", 1),
        ("milk10k", "AKIEC", "AK", None),
        ("milk10k", "Solar or actinic keratosis", "AK", 0),
        ("milk10k", "Squamous cell carcinoma in situ, Bowens disease", "SCC", 1),
        ("isic2024", "Benign", "UNK", 0),
        ("isic2024", "Malignant", "UNK", 1),
        ("isic2024", "Indeterminate::Indeterminate melanocytic proliferations::X", "UNK", 0),
        ("isic2024", "Benign::Benign epidermal proliferations::Porokeratosis", "INF", 0),
        ("folder", "Benign:Benign melanocytic proliferations:Nevus:Blue nevus", "NV", 0),
        ("folder", "malignant::merkel cell proliferation", "MAL_OTH", 1),
        ("folder", "basal cell carcinoma", "BCC", 1),
        ("folder", "akiec", "AK", None),
        ("folder", "ACK", "AK", 0),
        ("folder", "indeterminate/benign", "UNK", 0),
        ("folder", "indeterminate/malignant", "UNK", None),
        ("folder", "atypical spitz tumor", "UNK", 0),
        ("folder", "ephelis", "BEN_OTH", 0),
        ("folder", "epidermal nevus", "BKL", 0),
        ("folder", "merkel cell carcinoma", "MAL_OTH", 1),
        ("folder", "mucosal melanosis", "BEN_OTH", 0),
        ("folder", "nevus spilus", "NV", 0),
        ("folder", "sebaceous adenoma", "BEN_OTH", 0),
        ("folder", "unknown", "UNK", None),
    ],
)
def test_a_label_means(archive, raw, shared, malignant):
    found = meaning(archive, raw)
    assert found is not None
    assert (found.shared, found.malignant) == (shared, malignant)


@pytest.mark.parametrize(
    "path", ["::".join(leaf) for _, leaf in (*MALIGNANT, *NAMED, (1, FIVE_LEVELS))]
)
def test_isic2024_paths_are_as_malignant_as_their_first_level(path):
    found = meaning("isic2024", path)
    assert found is not None
    assert found.malignant == path.startswith("Malignant")
    assert found.shared in SHARED


def test_labels_that_nobody_lists_are_named_and_never_unknown_lesions():
    raw = pd.Series(["melanoma", None, "melanom", "spot"])
    assert unknown_labels("isic2020", raw) == ["melanom", "spot"]
    with pytest.raises(DataError, match="2 diagnoses have no shared class: 'melanom', 'spot'"):
        shared_classes("isic2020", raw)
    with pytest.raises(DataError, match=r"Benign::Nonsense"):
        malignancy("isic2024", pd.Series(["Benign::Nonsense::Nevus"]))
    assert meaning("isic2024", "nevus") is None  # the tree alone


def test_series_keep_their_index_and_their_gaps():
    raw = pd.Series(["nevus", None, "melanoma"], index=[7, 3, 5])
    assert shared_classes("isic2020", raw).fillna("").to_dict() == {7: "NV", 3: "", 5: "MEL"}
    assert malignancy("isic2020", raw).fillna(-1).to_dict() == {7: 0, 3: -1, 5: 1}


def test_possible_classes_are_in_the_shared_order():
    assert possible_classes("isic2019") == (*SHARED[:8], "UNK")
    assert possible_classes("isic2020") == ("MEL", "NV", "BKL", "UNK")
    assert possible_classes("milk10k") == SHARED[:-1]
    assert possible_classes("isic2024") == possible_classes("folder") == SHARED


# ---- real tables


def test_milk10k_diagnoses_map_onto_the_ground_truth(real_root):
    root = real_root / "milk10k"
    truth = pd.read_csv(root / "MILK10k_Training_GroundTruth.csv").set_index("lesion_id")
    images = text(root / "MILK10k_Training_Metadata.csv")[["isic_id", "lesion_id"]]
    full = text(root / "MILK10k_Training_Supplement.csv").merge(images, on="isic_id")
    classes = {raw: c for c, names in MILK10K_FULL.items() for raw in names.split("; ")}
    given = full["lesion_id"].map(truth.idxmax(axis=1))
    assert full["diagnosis_full"].map(classes).tolist() == given.tolist()
    shared = shared_classes("milk10k", full["diagnosis_full"])
    split = given.isin(["AKIEC"])
    renamed = given.replace({"SCCKA": "SCC"})
    assert (shared[~split] == renamed[~split]).all()
    assert set(shared[split]) == {"AK", "SCC"}


def test_isic2020_diagnoses_are_as_malignant_as_their_target(real_root):
    train = text(real_root / "isic2020" / "train.csv")
    assert (malignancy("isic2020", train["diagnosis"]) == train["target"].astype(int)).all()
    counts = shared_classes("isic2020", train["diagnosis"]).value_counts()
    assert counts.to_dict() == {"UNK": 27126, "NV": 5193, "MEL": 584, "BKL": 223}


def test_isic2024_paths_are_as_malignant_as_their_target(real_root):
    rows = text(real_root / "isic2024" / "train-metadata_5rows_55cols.csv")
    assert (malignancy("isic2024", rows["iddx_full"]) == rows["target"].astype(int)).all()


def test_isic2019_made_squamous_carcinoma_of_most_of_ham10000s_akiec(real_root):
    root = real_root / "isic2019"
    truth = pd.read_csv(root / "ISIC_2019_Training_GroundTruth.csv").set_index("image")
    lesion = text(root / "ISIC_2019_Training_Metadata.csv").set_index("image")["lesion_id"]
    ham = truth[lesion.reindex(truth.index).str.startswith("HAM").fillna(False).astype(bool)]
    assert (ham["AK"].sum(), ham["SCC"].sum()) == (130, 197)
