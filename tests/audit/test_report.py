"""What is written: facts that differ only where archives do, and a page a person can read."""

import json
from pathlib import Path

from isic.audit.findings import NOTE, ODD, RIGHT, WRONG, Finding, Part
from isic.audit.report import FACTS, TEXT, Report
from isic.index.isic2024 import INFO


def report(root: str = "somewhere", seconds: float = 1.0) -> Report:
    made = Report(INFO, Path(root), "0123456789ab")
    made.parts["a"] = Part([Finding(WRONG, "images", "two | gone", "fetch them")], {"n": 2})
    made.parts["b"] = Part([Finding(ODD, "values", "new"), Finding(RIGHT, "ids", "each once")])
    made.parts["notes"] = Part([Finding(NOTE, "reader", "b is the positive class")])
    made.seconds["a"] = seconds
    return made


def test_findings_go_from_right_to_wrong() -> None:
    assert [f.state for f in report().findings] == [RIGHT, NOTE, ODD, WRONG]
    assert [f.text for f in report().errors] == ["two | gone"]


def test_lines_hold_what_the_error_does_not_and_the_licence() -> None:
    made = report()
    made.parts["c"] = Part([Finding(ODD, "counts", "fewer", "fetch them")])
    lines = made.lines()
    assert lines[0] == "isic2024 in somewhere"
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["right", "ids"],
        ["note", "reader"],
        ["odd", "values"],
        ["odd", "counts"],
    ]
    assert lines[5].strip() == "-> fetch them"
    assert "a 1.0" in lines[6]
    assert INFO.license in lines[7]
    assert INFO.citation in lines[7]
    assert "gone" not in "".join(lines)


def test_the_facts_depend_on_neither_time_nor_place(tmp_path: Path) -> None:
    report().write(tmp_path / "one")
    report("elsewhere", 7.0).write(tmp_path / "two")
    texts = [(tmp_path / name / FACTS).read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]
    facts = json.loads(texts[0])
    assert facts["a"] == {"n": 2}
    assert facts["states"] == {"right": 1, "note": 1, "odd": 1, "wrong": 1}


def test_the_page_is_a_table(tmp_path: Path) -> None:
    made = report()
    columns = {"age / value": {"class": "malignant", "auc": 0.7}}
    made.parts["shortcuts"] = Part(facts={"columns": columns})
    made.write(tmp_path)
    page = (tmp_path / TEXT).read_text()
    assert "| wrong | images | two \\| gone | fetch them |" in page
    assert "| age / value | malignant | 0.700 |" in page
