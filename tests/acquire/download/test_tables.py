"""The tables beside the images, against pandas and the archive's own rule for attributions."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.acquire.download.api import read_image
from isic.acquire.download.tables import (
    RowSpool,
    by_weight,
    claim,
    write_failures,
    write_request,
    write_tables,
)
from isic.errors import ConfigError, DataError
from tests.acquire.download.server import Archive

ASKED = {"api": "x", "query": "", "collections": [], "limit": None}


class Texts:
    """An API that knows licences alone."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def licence(self, name: str) -> str:
        self.asked.append(name)
        return f"text of {name}"


def write(root: Path, entries: list[dict[str, Any]], without: tuple[str, ...] = ()) -> Texts:
    texts = Texts()
    with RowSpool(root) as rows:
        for entry in entries:
            rows.add(read_image(entry, "https://archive.test").row)
        n = write_tables(root, rows, texts, without=without)  # type: ignore[arg-type]
    assert n == len(entries) - len(without)
    return texts


@pytest.fixture
def entries() -> list[dict[str, Any]]:
    archive = Archive(31)
    archive.url = "https://archive.test"
    odd = 'Hôpital "A", B\nline two, 皮膚'
    archive.changes[archive.names[3]] = {"attribution": odd}
    archive.changes[archive.names[4]] = {"copyright_license": "CC/BY ../NC"}
    return [archive.entry(name) for name in archive.names]


def test_the_table_is_what_pandas_makes_of_the_objects(
    entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    write(tmp_path, entries)
    ours = pd.read_csv(tmp_path / "metadata.csv", dtype=str, keep_default_na=False)
    flat = pd.json_normalize([{**e, **e["metadata"]} for e in entries])
    flat.columns = [c.rpartition(".")[2] if c.startswith(("acq", "clin")) else c for c in flat]
    first = ["isic_id", "attribution", "copyright_license"]
    others = sorted({k for e in entries for group in e["metadata"].values() for k in group})
    assert list(ours) == [*first, *others]
    for column in ours:
        expected = flat[column].map(lambda v: "" if pd.isna(v) else str(v)).tolist()
        assert ours[column].tolist() == expected, column


def test_the_same_rows_are_the_same_bytes(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, entries)
    tables = [(tmp_path / name / "metadata.csv").read_bytes() for name in ("a", "b")]
    assert tables[0] == tables[1]
    assert b"\r" not in tables[0]


def test_images_that_are_not_there_have_no_row(
    entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    lost = (entries[0]["isic_id"], entries[5]["isic_id"])
    write(tmp_path, entries, without=lost)
    ours = pd.read_csv(tmp_path / "metadata.csv")
    assert ours["isic_id"].tolist() == [e["isic_id"] for e in entries if e["isic_id"] not in lost]


def test_attributions(entries: list[dict[str, Any]], tmp_path: Path) -> None:
    write(tmp_path, entries)
    text = (tmp_path / "attribution.txt").read_text(encoding="utf-8")
    odd = entries[3]["attribution"]
    assert text == f"Hospital Clínic de Barcelona\n\nMSKCC\n\n{odd}\n\nAnonymous\n"


@given(st.dictionaries(st.sampled_from(["Anonymous", "", *"abcdef"]), st.integers(1, 5)))
def test_the_order_of_attributions_is_the_archives(counts: dict[str, int]) -> None:
    by_count = sorted(counts.items(), key=lambda v: (-v[1], v[0]))
    reference = sorted(by_count, key=lambda v: 1 if v[0] == "Anonymous" else 0)
    assert by_weight(Counter(counts)) == [name for name, _ in reference if name]


def test_licences(
    entries: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    texts = write(tmp_path, entries)
    folder = tmp_path / "licenses"
    names = ["CC-0", "CC-BY", "CC-BY-NC"]
    assert sorted(p.stem for p in folder.iterdir()) == sorted([*names, "CC-BY----NC"])
    assert (folder / "CC-BY-NC.txt").read_text() == "text of CC-BY-NC"
    assert sorted(texts.asked) == sorted([*names, "CC/BY ../NC"])
    assert "licences: CC-0 11, CC-BY-NC 10, CC-BY 9, CC/BY ../NC 1" in caplog.text
    assert not write(tmp_path, entries).asked  # they are there


def test_a_folder_of_licences_that_leads_elsewhere(
    entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "licenses").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="got a link"):
        write(tmp_path / "root", entries)
    assert not list((tmp_path / "outside").iterdir())


def test_rows_leave_no_file_behind(tmp_path: Path) -> None:
    with RowSpool(tmp_path) as rows:
        rows.add({"isic_id": "a", "x": "1"})
        rows.add({"isic_id": "b", "w": "line\nbreak"})
        assert list(rows) == list(rows)
        assert [row["isic_id"] for row in rows] == ["a", "b"]
        assert rows.columns == ["isic_id", "attribution", "copyright_license", "w", "x"]
        assert not list(tmp_path.iterdir())


def test_claims(tmp_path: Path) -> None:
    claim(tmp_path, ASKED)
    write_request(tmp_path, ASKED)
    claim(tmp_path, {**ASKED, "limit": 5, "api": "another server"})
    with pytest.raises(ConfigError, match="query: '' -> 'a:b'"):
        claim(tmp_path, {**ASKED, "query": "a:b"})
    for broken in ("{", "3", "[1]"):
        (tmp_path / "download.json").write_text(broken)
        with pytest.raises(ConfigError, match="cannot be read"):
            claim(tmp_path, ASKED)


def test_failures(tmp_path: Path) -> None:
    write_failures(tmp_path, {"ISIC_1": "status 404"})
    assert (tmp_path / "failed.txt").read_text() == "ISIC_1: status 404\n"
    write_failures(tmp_path, {})
    assert not list(tmp_path.iterdir())
