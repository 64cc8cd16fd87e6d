"""Submissions written and checked as the official scorers would."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from isic.errors import DataError
from isic.predictions import validate_submission, write_submission
from isic.predictions.submission import find_sample, sample_ids

ISIC2024 = SimpleNamespace(
    classes=("benign", "malignant"),
    id_column="isic_id",
    submission_columns=("target",),
    submission_classes=(),
)
SKIN = SimpleNamespace(
    classes=("AKIEC", "BCC", "NV"),
    id_column="lesion_id",
    submission_columns=("AKIEC", "BCC", "NV"),
    submission_classes=(),
)
IDS = ["ISIC_0015657", "ISIC_0015729", "ISIC_0015740"]


def predictions(malignant=(0.1, 1 / 3, 1e-9), ids=IDS) -> pd.DataFrame:
    malignant = np.array(malignant)
    return pd.DataFrame(
        {
            "image_id": ids,
            "lesion_id": None,
            "fold": None,
            "split": "test",
            "status": "ok",
            "prob_benign": 1 - malignant,
            "prob_malignant": malignant,
        }
    )


def sample(path: Path, ids=IDS) -> Path:
    pd.DataFrame({"isic_id": ids, "target": 0.3}).to_csv(path, index=False)
    return path


def test_ids_and_order_are_those_of_the_sample(tmp_path: Path) -> None:
    official = sample(tmp_path / "sample_submission.csv")
    path = write_submission(
        tmp_path / "out" / "submission.csv", predictions().iloc[[2, 0, 1]], ISIC2024, official
    )
    written = pd.read_csv(path)
    assert list(written.columns) == ["isic_id", "target"]
    assert written["isic_id"].tolist() == IDS
    assert written["target"].tolist() == [0.1, 1 / 3, 1e-9]  # every digit comes back
    validate_submission(path, ISIC2024, sample=official)
    validate_submission(path, ISIC2024)


def test_whole_numbers_are_written_with_a_point(tmp_path: Path) -> None:
    path = write_submission(tmp_path / "s.csv", predictions([0, 1, 1]), ISIC2024)
    assert path.read_text() == (
        "isic_id,target\nISIC_0015657,0.0\nISIC_0015729,1.0\nISIC_0015740,1.0\n"
    )
    validate_submission(path, ISIC2024)


def test_single_precision_scores_keep_their_value(tmp_path: Path) -> None:
    frame = predictions()
    frame["prob_malignant"] = np.array([0.1, 1 / 3, 1e-9], dtype=np.float32)
    written = pd.read_csv(write_submission(tmp_path / "s.csv", frame, ISIC2024))
    np.testing.assert_array_equal(written["target"].astype(np.float32), frame["prob_malignant"])


def test_unreadable_rows_get_the_mean_of_the_readable(tmp_path: Path, caplog) -> None:
    frame = predictions([0.2, np.nan, 0.6])
    frame.loc[1, "status"] = "unreadable"
    written = pd.read_csv(write_submission(tmp_path / "s.csv", frame, ISIC2024))
    assert written["target"].tolist() == [0.2, 0.4, 0.6]
    assert "ISIC_0015729" in caplog.text


def test_one_column_a_class_by_lesion(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "lesion_id": ["IL_1", "IL_2"],
            "fold": None,
            "split": "test",
            "status": "ok",
            "prob_AKIEC": [0.2, 0.0],
            "prob_BCC": [0.5, 0.0],
            "prob_NV": [0.3, 1.0],
        }
    )
    path = write_submission(tmp_path / "s.csv", frame, SKIN)
    assert path.read_text() == "lesion_id,AKIEC,BCC,NV\nIL_1,0.2,0.5,0.3\nIL_2,0.0,0.0,1.0\n"


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (IDS[:2], "1 ids not asked for: ISIC_0015740"),
        ([*IDS, "ISIC_1"], "1 ids missing: ISIC_1"),
    ],
)
def test_predictions_of_other_rows_are_refused(tmp_path: Path, ids, said) -> None:
    with pytest.raises(DataError, match=said):
        write_submission(tmp_path / "s.csv", predictions(), ISIC2024, sample(tmp_path / "o", ids))
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("bad", ["=1+1", "../up", "a b", "", "x" * 65, "+ISIC", "@ISIC"])
def test_ids_that_are_no_ids_are_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(DataError, match="1 ids not an id"):
        write_submission(tmp_path / "s.csv", predictions(ids=[*IDS[:2], bad]), ISIC2024)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="predictions have classes"):
        write_submission(tmp_path / "s.csv", predictions(), SKIN)
    four = SimpleNamespace(**(vars(ISIC2024) | {"submission_columns": ("a", "b", "c")}))
    with pytest.raises(DataError, match="3 submission columns"):
        write_submission(tmp_path / "s.csv", predictions(), four)


HEAD = "isic_id,target\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,target\nISIC_0015657,0.1\n", "expected columns"),
        ("target,isic_id\n0.1,ISIC_0015657\n", "expected columns"),
        (HEAD + "ISIC_0015657,0.1\nISIC_0015729,0.2\n", "1 ids missing: ISIC_0015740"),
        (HEAD + "".join(f"{i},0.1\n" for i in [*IDS, "ISIC_2"]), "1 ids not asked for: ISIC_2"),
        (HEAD + "".join(f"{i},0.1\n" for i in [*IDS, IDS[0]]), "1 ids twice: ISIC_0015657"),
        (HEAD + "".join(f"{i},0.1\n" for i in IDS[::-1]), "another order .* row 1"),
        (HEAD + f"{IDS[0]},\n{IDS[1]},0.1\n{IDS[2]},nan\n", "target is missing in 2 rows"),
        (HEAD + f"{IDS[0]},high\n{IDS[1]},0.1\n{IDS[2]},0.2\n", "target is not a number in 1"),
        (HEAD + f"{IDS[0]},1.5\n{IDS[1]},-0.1\n{IDS[2]},inf\n", r"outside \[0, 1\] in 3 rows"),
        (HEAD + "".join(f"{i},{k}\n" for i, k in zip(IDS, (0, 1, 0), strict=True)), "0.0 and 1.0"),
    ],
)
def test_official_checks(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        validate_submission(tmp_path / "s.csv", ISIC2024, sample=sample(tmp_path / "o.csv"))


def test_absent_files_and_foreign_samples_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no submission at"):
        validate_submission(tmp_path / "s.csv", ISIC2024)
    with pytest.raises(DataError, match="sample submission: expected columns"):
        write_submission(tmp_path / "s.csv", predictions(), ISIC2024, pd.DataFrame({"image": IDS}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("isic_id,target\nISIC_0015657,0\nISIC_0015657,0\n", "1 ids twice: ISIC_0015657"),
        ("isic_id,target\nISIC_0015657,0\nISIC_0015657.JPG,0\n", "1 ids twice"),
        ("isic_id,target\n,0\nISIC_0015657,0\n", "1 ids not an id"),
        ("isic_id,target\n=cmd(),0\n", "1 ids not an id"),
        ("isic_id,target\n", "has a header but no rows"),
        ("isic_id;target\nISIC_0015657;0\n", "expected columns"),
        ("isic_id,prediction\nISIC_0015657,0\n", "expected columns"),
        ("image,target\nISIC_0015657,0\n", "expected columns"),
        ("isic_id,target,more\nISIC_0015657,0,1\n", "expected columns"),
        ("", "not a readable CSV"),
        ("isic_id,target\nISIC_0015657,0,1,2\nx,1\n", "sample_submission.csv"),
        (b"PK\x03\x04\xff\xfe\x00", "damaged"),
    ],
)
def test_every_fault_of_a_sample_is_said_of_the_sample(tmp_path, text, said) -> None:
    path = tmp_path / "sample_submission.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as refused:
        sample_ids(path, ISIC2024)
    assert str(path) in str(refused.value) and said in str(refused.value)


def test_the_official_sample_of_three_images(tmp_path: Path, real_root: Path) -> None:
    found = sorted((real_root / "isic2024").rglob("sample_submission.csv"))
    if not found:
        pytest.skip("no sample_submission.csv among the real samples")
    ids = pd.read_csv(found[0], dtype=str)["isic_id"].tolist()
    frame = predictions(np.linspace(0, 1, len(ids)), ids).iloc[::-1]
    path = write_submission(tmp_path / "s.csv", frame, ISIC2024, found[0])
    assert pd.read_csv(path)["isic_id"].tolist() == ids


def skin(ids=("IL_1", "IL_2")) -> pd.DataFrame:
    probs = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    frame = pd.DataFrame({"image_id": ["a", "b"], "lesion_id": ids, "fold": None})
    frame = frame.assign(split="test", status="ok")
    return frame.assign(**{f"prob_{c}": probs[:, i] for i, c in enumerate(SKIN.classes)})


@pytest.mark.parametrize("head", ["lesion", "lesion_id"])
def test_lesions_are_asked_for_under_either_name_and_written_officially(tmp_path, head) -> None:
    official = tmp_path / "MILK10k_Sample_Submission.csv"
    pd.DataFrame({head: ["IL_2", "IL_1.jpg"]}).to_csv(official, index=False)
    path = write_submission(tmp_path / "s.csv", skin(), SKIN, find_sample(tmp_path))
    assert pd.read_csv(path).columns.tolist() == ["lesion_id", *SKIN.classes]
    assert pd.read_csv(path)["lesion_id"].tolist() == ["IL_2", "IL_1"]
    renamed = path.read_text().replace("lesion_id", head)
    path.write_text(renamed)
    validate_submission(path, SKIN, sample=official)


def test_one_class_of_many_behind_the_only_column(tmp_path) -> None:
    info = SimpleNamespace(
        classes=SKIN.classes,
        id_column="image_name",
        submission_columns=("target",),
        submission_classes=("BCC",),
    )
    path = write_submission(tmp_path / "s.csv", skin(), info)
    assert pd.read_csv(path)["target"].tolist() == [0.5, 0.1]
    info.submission_classes = ("MEL",)
    with pytest.raises(DataError, match="not among"):
        write_submission(tmp_path / "s.csv", skin(), info)


def test_two_samples_are_one_too_many(tmp_path) -> None:
    assert find_sample(tmp_path) is None
    sample(tmp_path / "sample_submission.csv")
    assert find_sample(tmp_path) == tmp_path / "sample_submission.csv"
    sample(tmp_path / "Sample-Submission.csv")
    with pytest.raises(DataError, match="one sample submission"):
        find_sample(tmp_path)
