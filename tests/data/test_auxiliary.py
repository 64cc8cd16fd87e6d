"""Auxiliary targets: what a head learns follows from training rows, and reaches no network."""

import numpy as np
import pandas as pd
import pytest
import torch

from isic.data.auxiliary import AuxiliaryOptions, Head, fit_heads, values_hash
from isic.errors import ConfigError
from isic.index.isic2024 import INFO

COLUMNS = ["iddx_1", "lesion_id_present", "clin_size_long_diam_mm"]


def table(n=12):
    return pd.DataFrame(
        {
            "image_id": [f"I{i}" for i in range(n)],
            "target": pd.array([i % 2 for i in range(n)], "Int64"),
            "benign": 1.0,
            "malignant": 0.0,
            "diagnosis": ["nevus", "melanoma", None] * (n // 3),
            "lesion_id": ["L1", None, None, None] * (n // 4),
            "size_mm": [float(i) for i in range(n - 1)] + [np.nan],
            "biopsy": [0, 1, 1] * (n // 3),
            "same": "x",
            "label_again": ["no", "yes"] * (n // 2),
            "fold": 0,
        }
    )


def fitted(*names, **options):
    return fit_heads(table(), names, info=INFO, **options)


def test_kinds():
    diagnosis, known, size, biopsy = fitted("diagnosis", "lesion_id_present", "size_mm", "biopsy")
    assert diagnosis.classes == ("melanoma", "nevus")
    assert diagnosis.encode(table()).tolist() == [1, 0, -1] * 4
    assert known.encode(table()).tolist() == [1, 0, 0, 0] * 3
    assert biopsy.encode(table()).tolist() == [0, 1, 1] * 4
    number = size.encode(table())
    assert number.dtype == np.float32
    assert np.isnan(number[-1])
    assert number[:-1].mean() == pytest.approx(0, abs=1e-6)
    assert number[:-1].std() == pytest.approx(1)
    assert [h.n_outputs for h in (diagnosis, known, size, biopsy)] == [2, 2, 1, 2]


def test_a_class_of_other_rows_is_left_out():
    head = fit_heads(table().iloc[:6], ["diagnosis"], info=INFO)[0]
    assert head.encode(pd.DataFrame({"diagnosis": ["dermatofibroma", "nevus"]})).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diagnosys", "did you mean diagnosis"),
        ("lesion_present", "did you mean lesion_id"),
        ("target", "the label itself"),
        ("malignant", "the label itself"),
        ("fold", "no column of isic2024"),
        ("same", "same has 1 values in 12 training rows, expected 2 to 256"),
        ("same_present", "1 values"),
    ],
)
def test_what_can_be_no_target(name, said):
    with pytest.raises(ConfigError, match=said):
        fitted(name)


def test_an_id_is_no_class():
    rows = pd.DataFrame({"parent": [str(i) for i in range(300)], "target": 0})
    with pytest.raises(ConfigError, match="300 values.*learn whether it is there: parent_pre"):
        fit_heads(rows, ["parent"], info=INFO)
    few = pd.DataFrame({"patient_id": ["a", "b"] * 6, "target": 0})
    with pytest.raises(ConfigError, match="patient_id is an id, .*there: patient_id_present"):
        fit_heads(few, ["patient_id"], info=INFO)


def test_an_input_is_no_target():
    for name in ("size_mm", "size_mm_present"):
        with pytest.raises(ConfigError, match=r"sees size_mm already \(data.metadata\)"):
            fitted(name, inputs=("size_mm",))


def test_a_second_name_of_the_label_is_said(caplog):
    fitted("diagnosis", "lesion_id_present")
    assert not caplog.records
    fitted("label_again")
    assert "label_again says the same as the label" in caplog.text


@pytest.mark.parametrize("columns", [[], "iddx_1", ["a", "a"], None, 3, [3]])
def test_options(columns):
    with pytest.raises(ConfigError, match=r"auxiliary\.columns: expected a list"):
        AuxiliaryOptions(columns)
    with pytest.raises(ConfigError, match=r"auxiliary\.weight: expected 0 or more, got -1"):
        AuxiliaryOptions(["a"], weight=-1)


def test_values_are_hashed_in_any_order():
    rows = table()
    known = values_hash(rows, ["diagnosis", "lesion_id_present"])
    assert values_hash(rows.iloc[::-1], ["diagnosis", "lesion_id_present"]) == known
    rows.loc[0, "lesion_id"] = None
    assert values_hash(rows, ["diagnosis", "lesion_id_present"]) != known


def test_batches_hold_them_while_training_and_validating_only(data32):
    data, plain = data32(auxiliary=COLUMNS), data32()
    keys = {f"aux_{name}" for name in COLUMNS}
    for loader, other in (
        (data.train_dataloader(), plain.train_dataloader()),
        (data.val_dataloader(), plain.val_dataloader()),
    ):
        batch, without = next(iter(loader)), next(iter(other))
        assert set(batch) - set(without) == keys
        assert all(torch.equal(batch[k], without[k]) for k in without)
    use = data.positions["held_out"]
    batch = next(iter(data.evaluation_loader(data.train_rows, use)))
    assert not keys & set(batch)
    assert not keys & set(next(iter(data.evaluation_loader(data.test_rows, np.arange(8)))))


def test_a_batch_holds_its_own_rows_values(data32):
    data = data32(auxiliary=COLUMNS)
    batch = next(iter(data.train_dataloader()))
    rows = data.train_rows.table.iloc[data.positions["train"][batch["row"]]]
    head = data.heads[0]
    assert [head.classes[i] for i in batch["aux_iddx_1"]] == rows["iddx_1"].tolist()
    present = rows["lesion_id"].notna().astype(int).tolist()
    assert batch["aux_lesion_id_present"].tolist() == present
    assert 0 < sum(data.heads[1].encode(data.train_rows.table)) < 120


def test_statistics_are_of_the_folds_training_rows(data32):
    data = data32(auxiliary=COLUMNS)
    train = data.train_rows.table.iloc[data.positions["train"]]["clin_size_long_diam_mm"]
    assert data.heads[2] == Head("clin_size_long_diam_mm", mean=train.mean(), std=train.std(ddof=0))


def test_columns_of_training_batches_follow_their_rows(data32):
    data = data32()
    data.train_columns["teacher"] = np.arange(120, dtype=np.float32)[:, None]
    batch = next(iter(data.train_dataloader()))
    rows = data.positions["train"][batch["row"]]
    assert batch["teacher"][:, 0].tolist() == rows.tolist()
    assert "teacher" not in next(iter(data.val_dataloader()))
