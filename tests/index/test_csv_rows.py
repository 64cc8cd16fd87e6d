"""No line of a CSV is lost to a quote: refused with file and line; quoted cells stay legal."""

import csv

import pytest

from isic.errors import DataError
from isic.index.csv_rows import refuse_lost_rows
from isic.index.folder.read import read_text
from isic.index.raw_csv import read_csv
from isic.predictions.submission import sample_ids
from isic.split.split_file import read_split

KINDS = {"image": "text", "age": "text", "note": "text"}


def rows_of(n=60):
    return [f"q{i},{30 + i},x" for i in range(n)]


def write(path, rows, *, header="image,age,note", end="\n"):
    path.write_bytes((end.join([header, *rows]) + end).encode())
    return path


def archives_reader(path):
    return read_csv(path, columns=KINDS, id_column="image").table.num_rows


def folders_reader(path):
    return len(read_text(path))


READERS = pytest.mark.parametrize("read", [archives_reader, folders_reader])


def opened(changes):
    rows = rows_of()
    for at, cells in changes.items():
        rows[at] = cells
    return rows


# rows changed -> the line that opens the quote; the header is line 1
OPEN = {
    "last column": ({20: 'q20,50,"5 mm'}, 22),
    "first column": ({20: '"q20,50,x'}, 22),
    "middle column": ({20: 'q20,"50,x'}, 22),
    "last line": ({59: 'q59,50,"5 mm'}, 61),
    "two that do not close": ({10: 'q10,"5 mm,x', 40: 'q40,5" mm,x'}, 12),
    "two that both open": ({10: 'q10,"40,x', 40: 'q40,"41,x'}, 12),
    "two that make a cell": ({10: 'q10,"40,x', 40: 'q40,41",x'}, 12),
    "two in the last column": ({10: 'q10,40,"x', 40: 'q40,41,x"'}, 12),
    "two on neighbouring lines": ({10: 'q10,40,"x', 11: 'q11,41,x"'}, 12),
    "two in the first column": ({10: '"q10,40,x', 40: 'q40",41,x'}, 12),
    "the whole table": ({0: 'q0,"30,x', 59: 'q59,89",x'}, 2),
}


@READERS
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("changes", "line"), OPEN.values(), ids=OPEN)
def test_an_open_quote_is_refused_with_its_line(tmp_path, read, end, changes, line):
    path = write(tmp_path / "metadata.csv", opened(changes), end=end)
    with pytest.raises(DataError, match=rf"metadata.csv: line {line} opens a quote"):
        read(path)


@READERS
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_cells_of_several_lines_are_read(tmp_path, read, end):
    notes = ["itches, hurts", f"since May{end}red, raised", 'he said "no"', f'"a"{end}{end}b, c, d']
    rows = [f"q{i},{30 + i},{quoted(notes[i % 4])}" for i in range(40)]
    assert read(write(tmp_path / "metadata.csv", rows, end=end)) == 40


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@READERS
def test_a_quote_within_a_cell_and_blank_lines_cost_no_row(tmp_path, read):
    rows = opened({3: 'q3,33,5" mm', 4: 'q4,34,"5" mm', 5: "", 30: 'q30,60,""'})
    assert read(write(tmp_path / "metadata.csv", rows)) == 59


@READERS
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_gives_every_row(tmp_path, read, end):
    assert read(write(tmp_path / "metadata.csv", rows_of(), end=end)) == 60


@READERS
def test_mixed_line_ends_and_none_at_the_end(tmp_path, read):
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbfimage,age,note\r\nq0,1,x\nq1,2,x\rq2,3,x")
    assert read(path) == 3


@READERS
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"image,age,note\nq0,1,x\nq1,2\x00,x\n", "line 3 holds NUL bytes"),
        (b"image,age,note\nq0,1,x\n" + b"\x00" * 4096, "line 3 holds NUL bytes"),
        ("image,age,note\nq0,1,x\n".encode("utf-16-le"), "NUL bytes|UTF-16"),
        ("image,age,note\nq0,1,x\n".encode("utf-16"), "UTF-8"),
        (b"image,age,note\nq0,1,x\nq1,2", "readable|got 2"),
        (b'image,age,note\nq0,1,x\nq1,2,"cut o', "line 3 opens a quote that nothing closes"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, read, text, why):
    path = tmp_path / "metadata.csv"
    path.write_bytes(text)
    with pytest.raises(DataError, match=why):
        read(path)


def test_a_cell_that_two_quotes_make_of_lines_with_other_delimiters(tmp_path):
    rows = [row.replace(",", ";") for row in opened({10: 'q10,"40,x', 40: 'q40,41",x'})]
    path = write(tmp_path / "metadata.csv", rows, header="image;age;note")
    with pytest.raises(DataError, match="line 12 opens a quote"):
        read_text(path)


def test_lists_of_lines_in_a_cell_are_no_rows(tmp_path):
    """A cell whose lines have the columns of the table, and say other things."""
    path = tmp_path / "metadata.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "age", "note"])
        for i in range(30):
            writer.writerow([f"q{i}", 30 + i, "seen\nred, raised, sore\nflat, brown, dry\n, , "])
    assert len(read_text(path)) == 30


def test_a_split_file_with_an_open_quote_is_refused(tmp_path):
    rows = [f"q{i},g{i},{i % 5}" for i in range(30)]
    rows[10], rows[20] = 'q10,"g10,0', 'q20,g20",0'
    path = write(tmp_path / "split.csv", rows, header="image_id,group,fold")
    with pytest.raises(DataError, match="split.csv: line 12 opens a quote"):
        read_split(path)


@pytest.mark.parametrize("cells", [{10: '"q10,0.5'}, {10: '"q10,0.5', 12: 'q12,"0.5'}])
def test_a_sample_submission_with_an_open_quote_is_refused(tmp_path, cells):
    from isic.index.isic2024 import INFO

    rows = [f"q{i},0.5" for i in range(30)]
    for at, text in cells.items():
        rows[at] = text
    path = write(tmp_path / "sample_submission.csv", rows, header="isic_id,target")
    with pytest.raises(DataError, match="line 12 opens a quote"):
        sample_ids(path, INFO)


def test_a_large_table_is_counted_over_chunks(tmp_path, monkeypatch):
    from isic.index import csv_rows

    path = write(tmp_path / "metadata.csv", rows_of(500), end="\r\n")
    for chunk in (7, 64, 4096):
        monkeypatch.setattr(csv_rows, "CHUNK", chunk)
        refuse_lost_rows(path, 501)
        with pytest.raises(DataError, match="500 rows were read"):
            refuse_lost_rows(path, 500)
