"""One CSV: names of columns, other names for them, columns that nobody knows."""

from pathlib import Path

import pandas as pd
import pytest

from isic.errors import DataError
from isic.index.raw_csv import MISSING, read_csv, without_gaps

KINDS = {"id": "text", "age": "number", "label": "label"}


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_blanks_around_names_are_no_part_of_them(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id , age,label\na,5,1.0\n", "utf-8-sig")
    raw = read_csv(path, columns=KINDS, id_column="id")
    assert raw.faults == raw.notes == []
    assert raw.table.to_pylist() == [{"id": "a", "age": 5.0, "label": "1.0"}]


def test_another_name_serves_where_the_official_one_is_not_there(tmp_path: Path) -> None:
    aliases = {"image": "id"}
    path = written(tmp_path / "t.csv", "image,age,label\na,5,1\n")
    assert read_csv(path, columns=KINDS, id_column="id", aliases=aliases).column("id")[0] == "a"
    path = written(tmp_path / "t.csv", "image,id,age,label\nb,a,5,1\n")
    raw = read_csv(path, columns=KINDS, id_column="id", aliases=aliases)
    assert raw.column("id")[0] == "a"
    assert "'image'" in raw.faults[0]


def test_unknown_columns_are_a_fault_or_a_note(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ",id,age,label,more\n0,a,5,1,x\n")
    strict = read_csv(path, columns=KINDS, id_column="id")
    lenient = read_csv(path, columns=KINDS, id_column="id", refuse_extra=False)
    numbers, extra = lenient.notes
    assert "its column '' without a name is left out" in numbers
    assert extra.endswith("1 columns that the official file has not: 'more'")
    assert strict.faults == [f"{extra}; remove them from the file, or download it again"]
    assert strict.notes == [numbers] and lenient.faults == []
    assert lenient.table.column_names == ["id", "age", "label"]


@pytest.mark.parametrize("cell", ["1_0", "5;0", "five", "0x5"])
def test_what_is_no_number_is_named(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path / "t.csv", f"id,age,label\na,5,1\nb,{cell},1\n")
    raw = read_csv(path, columns=KINDS, id_column="id")
    assert raw.unread == {"age": f"t.csv: age must be a number, got {cell!r} in 1 rows: b"}
    assert raw.faults == []  # whether the column is used is not known here
    assert raw.column("age").isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "data", [b"\x1f\x8b\x08\x00", "id,age\n".encode("utf-16"), b"a;b;c\n1;2;3\n"]
)
def test_what_is_no_such_csv_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"t\.csv"):
        read_csv(path, columns=KINDS, id_column="id")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty .0 bytes.; download or copy it again"),
        ("id,age,label\n".encode("utf-16"), "is UTF-16 text.*save it as comma-separated UTF-8"),
        (b"id;age;label\na;5;1\n", "separated by ';', expected ','; save it as comma-separated"),
        (b"id\tage\tlabel\na\t5\t1\n", r"separated by '\\t', expected ','; save it as comma"),
        (b"\xef\xbb\xbfid;age;label\n", "separated by ';'"),
        (b"\n\n", "its header is empty\nlacks|its header is empty"),
        (b"\x1f\x8b\x08\x00", "is it still compressed"),
        (b"id,age,label\n\xe4,5,1\n", "UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_csv(path, columns=KINDS, id_column="id")
    assert str(path) in str(error.value)


def test_words_for_nothing_are_gaps_whatever_their_case() -> None:
    words = pd.Series([w.upper() for w in MISSING] + [f" {w} " for w in MISSING], dtype="str")
    assert without_gaps(words).isna().all()
    kept = pd.Series(["IP_1", " IP_2 ", "-1", "-1.0", "nano", "0", None], dtype="str")
    assert without_gaps(kept).tolist()[:6] == ["IP_1", "IP_2", "-1", "-1.0", "nano", "0"]
    assert without_gaps(kept, group=True).isna().tolist() == [False] * 2 + [True] * 2 + [
        False
    ] * 2 + [True]
