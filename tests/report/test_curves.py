"""Curves and their numbers, against scikit-learn and against the metrics."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from isic.dashboard.run import read_confusion
from isic.metrics import roc_auc
from isic.report import curves
from isic.report.curves import confusion_matrix, pr_curve, roc_curve, write_curves

FILES = {f"{name}.{kind}" for name in ("roc", "pr", "confusion") for kind in ("csv", "png")}


def drawn(n: int, seed: int, decimals: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.random(n) < 0.3
    target[:2] = [False, True]
    return target, (rng.random(n) + 0.3 * target).round(decimals) / 1.3


@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([1, 8]))
def test_curves_are_those_of_scikit_learn(seed, n, decimals) -> None:
    target, score = drawn(n, seed, decimals)
    fpr, tpr, _ = reference.roc_curve(target, score, drop_intermediate=False)
    ours = roc_curve(target, score)
    kept = set(zip(ours["fpr"], ours["tpr"], strict=True))
    assert kept <= set(zip(fpr, tpr, strict=True))
    assert np.trapezoid(ours["tpr"], ours["fpr"]) == pytest.approx(roc_auc(target, score))
    precision, recall, _ = reference.precision_recall_curve(target, score)
    pr = pr_curve(target, score)
    found = pr[["recall", "precision"]].to_numpy()[1:]
    whole = np.stack([recall, precision], axis=1)[:-1][::-1]
    np.testing.assert_allclose(found, whole[: len(found)])
    assert found[-1, 0] == 1.0


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    target, score = drawn(60_000, 0)
    for curve, ends in (
        (roc_curve(target, score), [(0, 0), (1, 1)]),
        (pr_curve(target, score), [(0, 1), (1, None)]),
    ):
        points = curve.iloc[[0, -1], 1:].to_numpy()
        assert len(curve) <= curves.MAX_POINTS
        assert len(curve) > curves.MAX_POINTS // 4
        for point, end in zip(points, ends, strict=True):
            assert all(e is None or p == e for p, e in zip(point, end, strict=True))
    thin = roc_curve(target, score)
    area = np.trapezoid(thin["tpr"], thin["fpr"])
    assert area == pytest.approx(roc_auc(target, score), abs=1e-4)


def test_binary_files(tmp_path: Path) -> None:
    target, score = drawn(500, 1)
    paths = write_curves(tmp_path / "curves", target.astype(int), score, ("benign", "malignant"))
    assert {p.name for p in paths} == FILES == {p.name for p in (tmp_path / "curves").iterdir()}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in paths if p.suffix == ".png")
    roc = pd.read_csv(tmp_path / "curves" / "roc.csv")
    assert list(roc.columns) == ["class", "threshold", "fpr", "tpr"]
    assert set(roc["class"]) == {"malignant"}
    confusion = pd.read_csv(tmp_path / "curves" / "confusion.csv", index_col="true")
    assert list(confusion.columns) == list(confusion.index) == ["benign", "malignant"]
    expected = reference.confusion_matrix(target, score > 0.5)
    np.testing.assert_array_equal(confusion.to_numpy(), expected)


def test_more_classes_and_none_invented(tmp_path: Path, caplog) -> None:
    rng = np.random.default_rng(0)
    target = rng.choice([0, 1, 3], 200)
    probs = rng.dirichlet(np.ones(4), 200)
    write_curves(tmp_path, target, probs, ("MEL", "NV", "BCC", "DF"))
    for name in ("roc", "pr"):
        assert set(pd.read_csv(tmp_path / f"{name}.csv")["class"]) == {"MEL", "NV", "DF"}
    assert "no curve of BCC" in caplog.text
    found = confusion_matrix(target, probs, ("MEL", "NV", "BCC", "DF"))
    assert found.loc["BCC"].tolist() == [0, 0, 0, 0]
    assert found.to_numpy().sum() == 200
    with pytest.raises(ValueError, match="5 class names"):
        write_curves(tmp_path, target, probs, tuple("ABCDE"))


def test_one_class_only_gives_a_confusion_matrix_alone(tmp_path: Path, caplog) -> None:
    write_curves(tmp_path, np.zeros(5, dtype=int), np.linspace(0, 1, 5), ("benign", "malignant"))
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert pd.read_csv(tmp_path / "roc.csv").empty
    assert "no curve of malignant" in caplog.text


def test_a_picture_that_is_not_finished_is_not_there(tmp_path, monkeypatch):
    """Killed, or the disk is full: the picture of before stays whole."""
    from matplotlib.figure import Figure

    def torn(self, file, **_):
        file.write(b"\x89PNG")
        raise OSError(28, "No space left on device")

    (tmp_path / "roc.png").write_bytes(b"before")
    monkeypatch.setattr(Figure, "savefig", torn)
    with pytest.raises(OSError, match="No space"):
        write_curves(tmp_path, [0, 1, 0, 1], [0.1, 0.8, 0.3, 0.6], ("benign", "malignant"))
    assert (tmp_path / "roc.png").read_bytes() == b"before"
    assert not list(tmp_path.glob(".tmp-*"))


def test_class_names_of_every_kind_have_a_label_that_can_be_drawn(tmp_path: Path) -> None:
    """A formula, a hidden label, other scripts, a line end, texts that look like something else."""
    names = ("$a^$", "_b", "黑素瘤", "色素痣", "c\nd", "NA", "01", "1", "true", 'e,"f')
    labels = curves.picture_labels(names)
    assert list(labels) == list(names) and len(set(labels.values())) == len(names)
    assert (labels["$a^$"], labels["_b"], labels["色素痣"]) == (r"\$a^\$", " _b", "class 3")
    rng = np.random.default_rng(0)
    target = np.arange(100) % len(names)
    probs = rng.dirichlet(np.ones(len(names)), 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_curves(tmp_path, target, probs, names)
    table = pd.read_csv(tmp_path / "roc.csv", dtype={"class": str}, keep_default_na=False)
    assert set(table["class"]) == set(names)
    read = read_confusion(tmp_path / "confusion.csv")
    pd.testing.assert_frame_equal(read, confusion_matrix(target, probs, names), check_names=False)
