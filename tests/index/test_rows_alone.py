"""Archives of which only the test part is there: an index like the test rows of the whole."""

import importlib
from pathlib import Path

import pandas as pd
import pytest

from isic.acquire import synthetic
from isic.audit.check import check_archive
from isic.errors import DataError
from isic.index import merged
from isic.index.cache import cached_index
from isic.index.schema import Index, refuse_untrained
from isic.prepare import open_index
from tests.index.small_archives import copy_test_part

NAMES = ("isic2019", "isic2020", "isic2024", "milk10k")


def reader(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"isic.index.{name}").build_index


@pytest.fixture(scope="module", params=NAMES)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """A reader's name, a whole generated archive without test labels, its test part."""
    name, folder = str(request.param), tmp_path_factory.mktemp("alone")
    write = getattr(synthetic, f"write_{name}")
    whole: Path = write(folder / "whole", n_images=60, n_test=12, size_range=32)
    for truth in whole.glob("*Test_GroundTruth.csv"):
        truth.unlink()
    return name, whole, copy_test_part(whole, folder / "part")


def test_the_index_is_that_of_the_whole_archive_without_its_train_rows(both) -> None:
    name, whole, part = both
    expected = reader(name)(whole)
    index: Index = reader(name)(part)
    rows = expected.table[expected.table["split"] == "test"].reset_index(drop=True)
    pd.testing.assert_frame_equal(index.table, rows)
    assert len(rows) and index.table["target"].isna().all()
    assert index.info == expected.info and not expected.untrained
    assert [n for n in index.notes if "no train table" in n and "stand alone" in n]


def test_what_is_missing_and_what_is_there_are_named(both, tmp_path: Path) -> None:
    name, _, part = both
    index = cached_index(reader(name), part, cache_root=tmp_path)
    again = cached_index(reader(name), part, cache_root=tmp_path)
    assert again.untrained == index.untrained
    with pytest.raises(DataError, match="no train table; looked for") as error:
        refuse_untrained(again)
    table = next(p.name for p in part.glob("*.csv"))
    assert f"found {table}: its {len(index.table)} test rows" in str(error.value)
    assert "Set data.root to the folder that holds the tables, or download it" in str(error.value)
    with pytest.raises(DataError, match="no train table"):
        open_index(reader(name), part, cache_root=tmp_path, extra=str(part / "extra.csv"))


def test_the_check_reports_the_test_rows_and_is_wrong(both, tmp_path: Path) -> None:
    name, _, part = both
    report = check_archive(reader(name)(part), cache_root=tmp_path, progress=False)
    assert [f.subject for f in report.errors] == ["table"]
    assert "no train table" in report.errors[0].text
    said = "\n".join(report.lines())
    assert "test rows: " in said and " decode to the end" in said
    assert "labelled" not in said and "of a train row is known" not in said


def test_without_either_table_nothing_is_read(tmp_path: Path) -> None:
    for name in NAMES:
        with pytest.raises(DataError, match="no train table"):
            reader(name)(tmp_path)


def test_an_empty_test_table_is_none(both, tmp_path: Path) -> None:
    name, _, part = both
    table = next(part.glob("*.csv"))
    (tmp_path / table.name).write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="no train table"):
        reader(name)(tmp_path)


def test_it_cannot_be_a_part_of_a_merged_archive(both) -> None:
    name, _, part = both
    with pytest.raises(DataError, match=f"{name}: no train table"):
        merged.build_index(part.parent, parts=[name], roots={name: str(part)})
