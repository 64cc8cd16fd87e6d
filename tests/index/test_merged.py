"""Archives as one: who validates, shared labels, images and patients that two archives share."""

from pathlib import Path

import pandas as pd
import pytest

from isic.errors import ConfigError, DataError
from isic.index import isic2019
from isic.index.diagnosis import malignancy, shared_classes
from isic.index.isic2019 import CLASSES
from isic.index.merged import build_index
from isic.index.merged_rows import mounted
from isic.index.milk10k_columns import METADATA
from isic.index.schema import DatasetInfo, faults_of, index_hash, standard_columns
from isic.split.groups import group_of

NINE = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
# id -> class, lesion
ROWS_2019 = {
    "ISIC_0000001": ("NV", ""),
    "ISIC_0000002_downsampled": ("MEL", "MSK4_0000002"),
    "ISIC_0000003": ("AK", "BCN_0000003"),
    "ISIC_0000004": ("SCC", "BCN_0000003"),
}
# id -> patient, diagnosis, target
ROWS_2020 = {
    "ISIC_0000001": ("IP_0000001", "nevus", 0),  # also in 2019
    "ISIC_0000002": ("IP_0000002", "melanoma", 1),  # 2019 has it reduced
    "ISIC_0000005": ("IP_0000001", "unknown", 0),  # a patient of 2019's first image
    "ISIC_0000006": ("IP_0000003", "solar lentigo", 0),
    "ISIC_0000090": ("IP_0000004", "melanoma", 1),  # a test image of 2019
}


def lines(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows, ""]))


def write_2019(root: Path) -> None:
    truth = [
        ",".join([i, *(f"{float(c == name):.1f}" for name in CLASSES)])
        for i, (c, _) in ROWS_2019.items()
    ]
    known = [f"{i},30.0,anterior torso,{lesion},male" for i, (_, lesion) in ROWS_2019.items()]
    lines(root / "ISIC_2019_Training_GroundTruth.csv", ",".join(["image", *CLASSES]), truth)
    metadata = "image,age_approx,anatom_site_general,lesion_id,sex"
    lines(root / "ISIC_2019_Training_Metadata.csv", metadata, known)
    test = "image,age_approx,anatom_site_general,sex"
    lines(root / "ISIC_2019_Test_Metadata.csv", test, ["ISIC_0000090,50.0,,female"])
    for image in ROWS_2019:
        path = root / "ISIC_2019_Training_Input" / f"{image}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image.encode())


def write_2020(root: Path) -> None:
    metadata = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge"
    train = [
        f"{i},{patient},male,45.0,torso,{d},{'malignant' if t else 'benign'},{t}"
        for i, (patient, d, t) in ROWS_2020.items()
    ]
    lines(root / "train.csv", f"{metadata},diagnosis,benign_malignant,target", train)
    lines(root / "test.csv", metadata, ["ISIC_0000091,IP_0000009,male,20.0,"])


def write_2024(root: Path) -> None:
    """The layout without patients and diagnoses."""
    rows = ["ISIC_0000007,0", "ISIC_0000008,1"]
    lines(root / "ISIC_2024_Training_GroundTruth.csv", "isic_id,malignant", rows)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    write_2019(root / "isic2019")
    write_2020(root / "isic2020")
    write_2024(root / "isic2024")
    return root


def by_id(table: pd.DataFrame, column: str) -> dict[str, object]:
    return table.set_index("image_id")[column].to_dict()


def test_the_first_part_validates_and_the_others_train_everywhere(archives):
    index = build_index(archives, parts=["isic2019", "isic2020"])
    table = index.table
    assert tuple(table.columns[: len(standard_columns(index.info))]) == standard_columns(index.info)
    assert not faults_of(table, index.info)
    train = table[table["split"] == "train"]
    assert (train["archive"] == "isic2020").tolist() == train["external"].tolist()
    assert train.loc[~train["external"], "image_id"].tolist() == list(ROWS_2019)
    # test rows are the first part's, after all train rows
    assert table.loc[table["split"] == "test", "image_id"].tolist() == ["ISIC_0000090"]
    assert table["split"].tolist() == sorted(table["split"], reverse=True)


def test_labels_are_the_shared_ones(archives):
    index = build_index(archives, parts=["isic2019", "isic2020"])
    assert index.info.classes == NINE
    train = index.table[index.table["split"] == "train"]
    named = train["target"].map(dict(enumerate(NINE)))
    for archive, rows in train.groupby("archive"):
        assert named[rows.index].tolist() == shared_classes(archive, rows["diagnosis"]).tolist()
    assert (train[list(NINE)].to_numpy().argmax(axis=1) == train["target"]).all()
    assert by_id(train, "diagnosis")["ISIC_0000006"] == "solar lentigo"


def test_sites_are_as_coarse_as_the_coarsest_archive_says_them(archives):
    table = build_index(archives, parts=["isic2019", "isic2020"]).table
    coarse = {"torso", "upper extremity", "lower extremity", "head/neck", "palms/soles"}
    assert set(table["site"].dropna()) <= coarse | {"oral/genital"}
    raw = "\n".join(p.read_text() for p in (archives / "isic2019").glob("*Metadata.csv"))
    assert "anterior torso" in raw


def test_an_image_of_two_archives_stays_in_the_first_with_its_patient(archives):
    index = build_index(archives, parts=["isic2019", "isic2020"])
    table = index.table.set_index("image_id")
    assert table.loc["ISIC_0000001", "archive"] == "isic2019"
    assert table.loc["ISIC_0000001", "patient_id"] == "IP_0000001"
    # the reduced and the full image both stay, in one group
    assert {"ISIC_0000002", "ISIC_0000002_downsampled"} <= set(table.index)
    assert any("2 of isic2020 are images of an earlier part" in n for n in index.notes)


def test_a_test_image_of_the_first_part_trains_nowhere(archives):
    rows = build_index(archives, parts=["isic2019", "isic2020"]).table
    assert rows.loc[rows["image_id"] == "ISIC_0000090", "split"].tolist() == ["test"]
    swapped = build_index(archives, parts=["isic2020", "isic2019"]).table
    assert by_id(swapped, "split")["ISIC_0000090"] == "train"


@pytest.mark.parametrize("test_id", ["ISIC_0000006_downsampled", "ISIC_0000006"])
def test_a_test_image_in_another_form_trains_nowhere(tmp_path, test_id):
    write_2019(tmp_path / "isic2019")
    write_2020(tmp_path / "isic2020")
    header = "image,age_approx,anatom_site_general,sex"
    path = tmp_path / "isic2019" / "ISIC_2019_Test_Metadata.csv"
    lines(path, header, [f"{test_id},50.0,,female"])
    index = build_index(tmp_path, parts=["isic2019", "isic2020"])
    forms = index.table["image_id"].str.removesuffix("_downsampled") == "ISIC_0000006"
    assert index.table.loc[forms, "image_id"].tolist() == [test_id]
    assert index.table.loc[forms, "split"].tolist() == ["test"]


def test_rows_that_hang_together_across_archives_are_one_group(archives):
    table = build_index(archives, parts=["isic2019", "isic2020"]).table
    group = dict(zip(table["image_id"], group_of(table), strict=True))
    assert group["ISIC_0000001"] == group["ISIC_0000005"]  # a patient
    assert group["ISIC_0000002_downsampled"] == group["ISIC_0000002"]  # an image
    assert group["ISIC_0000003"] == group["ISIC_0000004"]  # a lesion
    assert len(set(group.values())) == 5


@pytest.mark.parametrize("parts", [["isic2019", "isic2020"], ["isic2020", "isic2019"]])
def test_no_external_row_trains_beside_its_group_in_validation(archives, parts):
    """The rule that the split applies, on the columns that this index fills."""
    table = build_index(archives, parts=parts).table
    table = table[table["split"] == "train"]
    group = group_of(table)
    for validating in group[~table["external"]].unique():
        training = table[table["external"] & (group != validating)]
        held_out = table[~table["external"] & (group == validating)]
        for column in ("patient_id", "lesion_id"):
            assert not set(training[column].dropna()) & set(held_out[column].dropna())
        bare = [t["image_id"].str.removesuffix("_downsampled") for t in (training, held_out)]
        assert not set(bare[0]) & set(bare[1])


def test_malignancy_is_the_challenges_own_where_it_has_one(archives):
    parts = ["isic2020", "isic2019", "isic2024"]
    index = build_index(archives, parts=parts, target="malignant")
    assert index.info.classes == ("benign", "malignant")
    target = by_id(index.table, "target")
    assert {i: target[i] for i in ROWS_2020} == {i: t for i, (_, _, t) in ROWS_2020.items()}
    assert (target["ISIC_0000003"], target["ISIC_0000004"]) == (0, 1)  # AK, SCC
    assert (target["ISIC_0000007"], target["ISIC_0000008"]) == (0, 1)
    assert (index.info.submission_columns, index.info.id_column) == (("target",), "image_name")


@pytest.mark.parametrize(
    ("parts", "target", "columns", "classes", "id_column"),
    [
        (["isic2019", "isic2020"], "diagnosis", CLASSES, CLASSES, "image"),
        (["isic2020", "isic2019"], "diagnosis", ("target",), ("MEL",), "image_name"),
        (["isic2020", "isic2019"], "malignant", ("target",), ("malignant",), "image_name"),
        (["isic2019", "isic2020"], "malignant", ("target",), (), "image_id"),
    ],
)
def test_it_is_submitted_as_the_first_part_where_that_can_be(
    archives, parts, target, columns, classes, id_column
):
    info = build_index(archives, parts=parts, target=target).info
    assert info.submission_columns == columns
    assert info.submission_classes == classes
    assert info.id_column == id_column
    assert DatasetInfo.from_dict(info.to_dict()) == info


def test_images_lie_in_one_mount_a_part(archives):
    index = build_index(archives, parts=["isic2019", "isic2020"])
    image = by_id(index.table, "image")
    expected = "@isic2019/ISIC_2019_Training_Input/ISIC_0000003.jpg"
    assert image["ISIC_0000003"] == expected
    assert index.sources.path(expected).read_bytes() == b"ISIC_0000003"
    assert pd.isna(image["ISIC_0000006"])
    assert set(index.mounts) == {"isic2019", "isic2020"}


def test_a_parts_own_mounts_are_kept_apart():
    refs = pd.Series(["x/1.jpg", "@later/2.jpg", None])
    assert mounted(refs, "p").fillna("").tolist() == ["@p/x/1.jpg", "@p.later/2.jpg", ""]


def test_messages_name_the_folders_that_are_there(archives, tmp_path):
    """Nobody has a folder `data` where each part is named by `data.index.roots`."""
    roots = {"isic2019": str(archives / "isic2019"), "isic2020": str(archives / "isic2020")}
    index = build_index(tmp_path / "data", parts=["isic2020", "isic2019"], roots=roots)
    assert index.folders == f"{archives / 'isic2020'}, {archives / 'isic2019'}"


def test_a_part_may_lie_elsewhere(archives, tmp_path):
    write_2019(tmp_path / "old")
    roots = {"isic2019": str(tmp_path / "old"), "isic2020": None}
    index = build_index(archives, parts=["isic2019", "isic2020"], roots=roots)
    assert index.mounts["isic2019"] == tmp_path / "old"
    with pytest.raises(ConfigError, match=r"data\.index\.roots.*got isic1999"):
        build_index(archives, parts=["isic2019"], roots={"isic1999": "x"})


@pytest.mark.parametrize("parts", [["isic1999"], [], ["isic2019", "isic2019"], ["merged"]])
def test_parts_without_a_reader_are_refused_with_the_choices(archives, parts):
    with pytest.raises(ConfigError, match=r"folder, isic2019, isic2020, isic2024, milk10k, got"):
        build_index(archives, parts=parts)


def test_classes_that_others_must_not_teach_are_left_out(archives):
    parts = ["isic2019", "isic2020"]
    index = build_index(archives, parts=parts, without=["UNK", "NV"])
    mine = index.table[index.table["external"]]
    assert set(mine["diagnosis"]) == {"melanoma", "solar lentigo"}
    assert index.info.classes == NINE
    assert "NV" in set(index.table["diagnosis"])  # the first part's own
    # the nevus that both hold counts too: it is left out before twins are looked for
    assert any("2 train rows of UNK, NV are left out" in n for n in index.notes)
    with pytest.raises(ConfigError, match=r"data\.index\.without.*got NEVUS"):
        build_index(archives, parts=parts, without=["NEVUS"])


def test_an_unknown_target_is_refused(archives):
    with pytest.raises(ConfigError, match=r"data\.index\.target"):
        build_index(archives, parts=["isic2019"], target="cancer")


def test_a_part_that_knows_no_diagnosis_is_refused_for_diagnoses(archives):
    with pytest.raises(DataError, match=r"isic2024: no row says which of MEL.*data\.parts"):
        build_index(archives, parts=["isic2019", "isic2024"])


def test_a_folder_may_be_a_part_and_what_it_does_not_say_is_left_out(archives, tmp_path):
    rows = ["a,mel", "b,nv", "c,akiec"]
    lines(tmp_path / "labels.csv", "image,label", rows)
    where = {"folder": str(tmp_path)}
    index = build_index(archives, parts=["isic2019", "folder"], target="malignant", roots=where)
    mine = index.table[index.table["archive"] == "folder"]
    assert by_id(mine, "target") == {"a": 1, "b": 0}
    assert any(
        "1 train rows without a shared label are left out: akiec (1)" in n for n in index.notes
    )
    lines(tmp_path / "labels.csv", "image,label", ["a,mel", "b,freckel"])
    with pytest.raises(DataError, match="no shared class: 'freckel'"):
        build_index(archives, parts=["isic2019", "folder"], roots=where)


def test_part_names_may_come_as_text_and_order_decides_the_split(archives):
    one = build_index(archives, parts="isic2019, isic2020").table  # type: ignore[arg-type]
    two = build_index(archives, parts=["isic2019", "isic2020"]).table
    pd.testing.assert_frame_equal(one, two)
    other = build_index(archives, parts=["isic2020", "isic2019"]).table
    assert index_hash(one) != index_hash(other)


def test_no_column_gives_a_parts_own_label_away(archives):
    index = build_index(archives, parts=["isic2020", "isic2024"], target="malignant")
    spare = set(index.table.columns) - {*standard_columns(index.info), "external"}
    assert spare <= {"duplicate_of"}
    own = build_index(archives, parts=["isic2020"], target="diagnosis")
    assert not {"benign", "malignant"} & set(own.table.columns)


def test_the_yaml_names_the_parts_once(archives):
    from omegaconf import OmegaConf

    from isic.cli import CONF

    data = OmegaConf.load(CONF / "data" / "merged.yaml")
    data.parts = ["isic2020", "isic2024"]
    assert data["index"]["parts"] == ["isic2020", "isic2024"]


def test_milk10ks_mixed_class_is_said_where_the_supplement_is_not_there(tmp_path):
    root = tmp_path / "milk10k"
    header = "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"
    rows = ["A,1,0,0,0,0,0,0,0,0,0,0", "B,0,1,0,0,0,0,0,0,0,0,0", "C,0,0,0,0,0,0,0,0,0,1,0"]
    lines(root / "MILK10k_Training_GroundTruth.csv", header, rows)
    given = "attribution,copyright_license,image_manipulation,age_approx,sex,skin_tone_class,site"
    own = [*given.split(","), *(c for c in METADATA if c.startswith("MONET"))]
    views = ("clinical: close-up", "dermoscopic")
    blank = "," * len(own)
    known = [f"{lesion},{v},{lesion}{i}{blank}" for lesion in "ABC" for i, v in enumerate(views)]
    header = ",".join(["lesion_id", "image_type", "isic_id", *own])
    lines(root / "MILK10k_Training_Metadata.csv", header, known)
    index = build_index(tmp_path, parts=["milk10k"])
    target = index.table["target"].map(dict(enumerate(index.info.classes)))
    assert target.tolist() == ["AK", "AK", "BCC", "BCC", "SCC", "SCC"]
    assert any("2 rows of AKIEC are AK here" in n for n in index.notes)
    # nobody says of these whether they are malignant
    binary = build_index(tmp_path, parts=["milk10k"], target="malignant")
    assert set(binary.table["lesion_id"]) == {"B", "C"}
    assert any("left out: AKIEC (2)" in n for n in binary.notes)
    assert binary.info.id_column == "image_id"


# ---- real tables


def test_real_archives_merge_under_their_published_counts(real_root):
    index = build_index(real_root, parts=["isic2019", "isic2020"])
    table = index.table[index.table["split"] == "train"]
    counts = table.groupby("archive")["target"].value_counts()
    expected = isic2019.INFO.published_counts
    assert {c: counts["isic2019"].get(i, 0) for i, c in enumerate(NINE)} == {
        c: expected[c] for c in NINE
    }
    assert counts["isic2020"].to_dict() == {8: 27126, 1: 5193, 0: 584, 4: 223}
    assert table["duplicate_of"].notna().sum() == 425


@pytest.mark.slow
def test_real_milk10k_beside_isic2019_has_all_its_shared_classes(real_root):
    index = build_index(real_root, parts=["isic2019", "milk10k"])
    milk = index.table[index.table["archive"] == "milk10k"]
    assert len(milk) == 8286
    assert milk["external"].all()
    assert milk.groupby("lesion_id").size().eq(2).all()
    signs = malignancy("milk10k", milk["diagnosis"])
    malignant = build_index(real_root, parts=["isic2019", "milk10k"], target="malignant").table
    assert malignant.loc[malignant["archive"] == "milk10k", "target"].tolist() == signs.tolist()
