"""Nothing that a stranger named a class, a column or an image runs where a table is opened."""

import csv
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isic.audit.findings import ODD, Finding, Part
from isic.audit.report import Report
from isic.cells import FORMULA, markdown_cell, spreadsheet_csv
from isic.dashboard.run import read_confusion
from isic.index.isic2024 import INFO
from isic.report.curves import write_curves
from isic.report.importance import write_importance

EVIL = [
    '=HYPERLINK("http://x","y")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1",
    "\n=1", "=a\r=b",
]  # fmt: skip


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("evil", EVIL)
def test_text_that_a_spreadsheet_would_run_becomes_text(evil):
    table = pd.DataFrame({evil: [evil, "plain", None], "n": [-1.5, 2, 3]}, index=[evil, "b", "c"])
    table.index.name = evil
    rows = cells(spreadsheet_csv(table, index=True))
    evil = evil.replace("\r", " ")
    assert rows[0] == [f"'{evil}", f"'{evil}", "n"]
    assert rows[1] == [f"'{evil}", f"'{evil}", "-1.5"]
    assert rows[2] == ["b", "plain", "2.0"]
    assert rows[3] == ["c", "", "3.0"]


def test_numbers_keep_their_sign_whatever_holds_them():
    table = pd.DataFrame(
        {
            "float": [-1.5, 2.0], "int": [-1, 2], "text": ["-1.5", "+2e3"], "object": [-3, "-"],
            "category": pd.Categorical(["=a", "b"]), "bool": [True, False],
        }
    )  # fmt: skip
    rows = cells(spreadsheet_csv(table))
    assert rows[1] == ["-1.5", "-1", "-1.5", "-3", "'=a", "True"]
    assert rows[2] == ["2.0", "2", "+2e3", "'-", "b", "False"]


def test_tables_of_curves_and_importance_hold_no_formula(tmp_path):
    classes = ["=1+1", "-x", "plain"]
    target = np.array([0, 1, 2, 0, 1, 2])
    probs = np.full((6, 3), 0.2) + 0.4 * np.eye(3)[target]
    write_curves(tmp_path, target, probs, classes)
    features = pd.DataFrame({"feature": ["@a", "b"], "gain": 0.5, "shap": -0.1, "models": 1})
    write_importance(tmp_path, features)
    for name in ("roc", "pr", "confusion", "importance"):
        for row in cells((tmp_path / f"{name}.csv").read_text()):
            assert not any(cell.startswith(FORMULA) and cell != "-0.1" for cell in row)
    assert list(read_confusion(tmp_path / "confusion.csv").index) == ["'=1+1", "'-x", "plain"]


def test_markdown_shows_what_it_was_given():
    assert markdown_cell("a|b\nc\r\n<img src=x> & [x](javascript:y)") == (
        "a\\|b c &lt;img src=x&gt; &amp; [x]\\(javascript:y)"
    )


def test_a_report_keeps_its_table_whatever_the_archive_says(tmp_path):
    evil = "x | y\n| <script>alert(1)</script> |"
    info = replace(INFO, name=evil, license=evil, citation=evil)
    report = Report(info, tmp_path, "0123")
    columns = {evil: {"class": evil, "auc": 0.9}}
    report.parts["shortcuts"] = Part([Finding(ODD, "images", evil, evil)], {"columns": columns})
    page = report.markdown()
    assert "<script>" not in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (4, 5) for line in table)
    assert len(table) == 2 + 1 + 2 + 1
