"""The text of a table, cell by cell."""

import numpy as np

from isic.acquire.synthetic.csv_text import decimal, masked, one_hot_cells, write_csv


def test_quotes_where_a_comma_needs_them_and_nowhere_else(tmp_path):
    columns = {"id": np.array(["a", "b"]), "text": np.array(["x, y", "z"]), "n": np.array([1, 2])}
    write_csv(tmp_path / "t.csv", columns)
    assert (tmp_path / "t.csv").read_bytes() == b'id,text,n\na,"x, y",1\nb,z,2\n'


def test_line_ends(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(path, {"id": np.array(["a", "b"])}, newline="\r\n")
    assert path.read_bytes() == b"id\r\na\r\nb\r\n"
    write_csv(path, {"id": np.array(["a", "b"])}, newline="\r\n", last_newline=False)
    assert path.read_bytes() == b"id\r\na\r\nb"
    write_csv(path, {"id": np.array([], dtype=str)}, last_newline=False)
    assert path.read_bytes() == b"id\n"  # a header is always closed


def test_numbers_as_text_and_missing_cells(tmp_path):
    age = np.array([45, 0, 80])
    columns = {
        "float": masked(decimal(age), np.array([False, True, False])),
        "int": masked(age, np.array([True, False, False])),
    }
    write_csv(tmp_path / "t.csv", columns)
    assert (tmp_path / "t.csv").read_text().splitlines() == ["float,int", "45.0,", ",0", "80.0,80"]


def test_one_hot_cells():
    codes = np.array(["B", "A"])
    assert {k: v.tolist() for k, v in one_hot_cells(codes, ("A", "B")).items()} == {
        "A": ["0.0", "1.0"],
        "B": ["1.0", "0.0"],
    }
    assert one_hot_cells(codes, ("A",), integers=True)["A"].tolist() == ["0", "1"]
