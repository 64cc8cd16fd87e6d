"""Whole downloads from a server on this machine: every byte, through every fault, resumed."""

import csv
import errno
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isic.acquire.download import Request, download_archive
from isic.acquire.download.http import Patience
from isic.errors import ConfigError, DataError, IsicError
from isic.files import PREFIX
from tests.acquire.download.server import Archive, served

QUICK = Patience(attempts=6, base=0.001, longest=0.01, timeout=5.0)


@pytest.fixture
def archive() -> Iterator[Archive]:
    with served(Archive(23, page=10)) as archive:
        yield archive


def fetch(archive: Archive, root: Path, request: Request | None = None, **options: Any) -> str:
    arguments = {"api": archive.url, "n_workers": 4, "patience": QUICK, "again": "COMMAND"}
    return download_archive(root, request or Request(), **{**arguments, **options})


def assert_whole(archive: Archive, root: Path, *, without: tuple[str, ...] = ()) -> None:
    """Every image byte for byte, a row each, and nothing half written."""
    wanted = {n: b for n, b in archive.files.items() if n not in without}
    assert {p.stem: p.read_bytes() for p in root.glob("ISIC*.jpg")} == wanted
    assert {row["isic_id"] for row in rows(root)} == wanted.keys()
    assert not list(root.rglob(f"{PREFIX}*"))


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_everything_arrives(archive: Archive, tmp_path: Path) -> None:
    said = fetch(archive, tmp_path / "a")
    assert_whole(archive, tmp_path / "a")
    assert "23 images are whole (23 fetched" in said
    assert set(archive.fetched().values()) == {1}
    asked = json.loads((tmp_path / "a" / "download.json").read_text())
    assert (asked["count"], asked["images"], asked["query"]) == (23, 23, "")
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if p.suffix != ".jpg") == [
        *(".lock", "attribution.txt", "download.json", "licenses", "metadata.csv")
    ]


@pytest.mark.parametrize("fault", ["429 0", "500", "reset", "break", "longer", "shorter"])
def test_a_fault_that_passes(archive: Archive, tmp_path: Path, fault: str) -> None:
    name = archive.names[7]
    archive.fault = lambda path, nth: fault if path.endswith(f"{name}.jpg") and nth < 4 else None
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert archive.fetched()[name] == 4


@pytest.mark.parametrize("seed", range(3))
def test_faults_at_random_everywhere(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    faults = ["429", "500", "503 0", "reset", "break", "longer", "shorter", None, None, None]
    with served(Archive(60, seed=seed, page=10)) as archive:
        archive.fault = lambda path, nth: draw.choice(faults) if nth < 5 else None
        fetch(archive, tmp_path, n_workers=8)
        assert_whole(archive, tmp_path)


def test_a_repeated_image_is_fetched_once(archive: Archive, tmp_path: Path) -> None:
    archive.names[12:12] = archive.names[8:10]  # the end of one page again on the next
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert set(archive.fetched().values()) == {1}


def test_what_is_there_is_not_fetched_again(archive: Archive, tmp_path: Path) -> None:
    fetch(archive, tmp_path)
    torn, gone, same = (tmp_path / f"{name}.jpg" for name in archive.names[3:6])
    torn.write_bytes(torn.read_bytes()[:-1])
    gone.unlink()
    archive.asked.clear()
    before = same.stat().st_mtime_ns
    said = fetch(archive, tmp_path)
    assert archive.fetched() == {torn.stem: 1, gone.stem: 1}
    assert "2 fetched" in said
    assert same.stat().st_mtime_ns == before
    assert_whole(archive, tmp_path)


def test_a_limit_takes_the_first_and_another_goes_on(archive: Archive, tmp_path: Path) -> None:
    fetch(archive, tmp_path, Request(limit=13))
    assert [row["isic_id"] for row in rows(tmp_path)] == archive.names[:13]
    assert archive.queries[0]["limit"] == ["13"]
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert set(archive.fetched().values()) == {1}


def test_a_smaller_limit_names_what_has_no_row(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(archive, tmp_path)
    fetch(archive, tmp_path, Request(limit=20))
    assert "without a row: ISIC_0000140, ISIC_0000147, ISIC_0000154" in caplog.text


def test_query_and_collections_go_through_as_they_are(archive: Archive, tmp_path: Path) -> None:
    query = 'diagnosis_3:"Melanoma & more+ #1" AND age_approx:[50 TO *] OR -sex:* é%20'
    fetch(archive, tmp_path, Request(query, (70, 425)))
    assert len(archive.queries) == 3
    assert {q["query"][0] for q in archive.queries} == {query}
    assert {q["collections"][0] for q in archive.queries} == {"70,425"}


def test_a_bad_query_is_2_with_the_words_of_the_api(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Could not parse search query\.$"):
        fetch(archive, tmp_path, Request("sex:(male"))
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    with pytest.raises(ConfigError, match="use diagnosis_1: to diagnosis_5:"):
        fetch(archive, tmp_path, Request("(diagnosis:melanoma"))
    with pytest.raises(ConfigError, match="use anatom_site_1:"):
        fetch(archive, tmp_path, Request("(anatom_site_general:*torso"))


def test_nothing_matches(archive: Archive, tmp_path: Path) -> None:
    archive.names, archive.count = [], 0
    with pytest.raises(ConfigError, match="no public image matches query='sex:none'"):
        fetch(archive, tmp_path, Request("sex:none"))


@pytest.mark.parametrize("fault", ["404", "500", "longer", "reset"])
def test_images_that_never_come_are_named(archive: Archive, tmp_path: Path, fault: str) -> None:
    lost = archive.names[2:9]
    archive.fault = lambda path, nth: fault if path[8:-4] in lost else None
    with pytest.raises(DataError) as caught:
        fetch(archive, tmp_path)
    message = str(caught.value)
    assert "16 of 23 images are whole" in message
    assert all(name in message for name in (archive.url.split("/")[2] and "COMMAND", "and 2 more"))
    assert_whole(archive, tmp_path, without=tuple(lost))
    failed = (tmp_path / "failed.txt").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in failed) == lost
    assert archive.fetched()[lost[0]] == (1 if fault == "404" else QUICK.attempts)
    archive.fault = lambda path, nth: None
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert not (tmp_path / "failed.txt").exists()


def test_fewer_than_counted(archive: Archive, tmp_path: Path) -> None:
    archive.count = 25
    with pytest.raises(DataError, match="the archive counted 25, its pages listed 23"):
        fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    archive.count = 22
    fetch(archive, tmp_path)


def test_a_file_that_vanishes_in_the_meantime(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / f"{archive.names[6]}.jpg"
    monkeypatch.setattr("isic.acquire.download.write_failures", lambda *_: gone.unlink())
    with pytest.raises(DataError, match=f"22 of 23 images are whole; vanished.*{gone.stem}"):
        fetch(archive, tmp_path)


def test_many_damaged_images_are_no_lost_network(archive: Archive, tmp_path: Path) -> None:
    lost = archive.names[1:]
    archive.fault = lambda path, nth: "longer" if path[8:-4] in lost else None
    with pytest.raises(DataError, match="1 of 23 images are whole"):
        fetch(archive, tmp_path, n_workers=1, patience=Patience(attempts=2, base=0.001))


def test_an_api_without_counts_and_sizes(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive.count = None
    for name in archive.names:
        files = archive.entry(name)["files"]
        del files["full"]["size"]
        archive.changes[name] = {"files": files}
    archive.fault = lambda path, nth: "404" if "size" in path else None
    fetch(archive, tmp_path)
    fetch(archive, tmp_path)
    assert "the API gives no count" in caplog.text
    assert_whole(archive, tmp_path)
    assert set(archive.fetched().values()) == {1}


@pytest.mark.parametrize("hostile", ["../../x", "/etc/x", "a/b", "..", "", "x.jpg", "a\0b", "é"])
def test_a_hostile_id_is_refused(tmp_path: Path, hostile: str) -> None:
    root = tmp_path / "a" / "b" / "root"
    with served(Archive(3)) as archive:
        archive.changes[archive.names[1]] = {"isic_id": hostile}
        with pytest.raises(DataError, match="refused: .*expected an id of letters"):
            fetch(archive, root)
        assert set(archive.fetched()) == {archive.names[0], archive.names[2]}
    written = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert {p.stem for p in written if p.suffix == ".jpg"} == {archive.names[0], archive.names[2]}
    assert all(p.is_relative_to(root) for p in written)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y.jpg", "", None])
def test_only_http_is_fetched(archive: Archive, tmp_path: Path, url: str | None) -> None:
    name = archive.names[1]
    archive.changes[name] = {"files": {"full": {"url": url, "size": 10}}}
    with pytest.raises(DataError, match=rf"{name}.*expected files.full.url over http"):
        fetch(archive, tmp_path)
    assert_whole(archive, tmp_path, without=(name,))


def test_a_size_that_cannot_be(archive: Archive, tmp_path: Path) -> None:
    for size in (0, -1, 1 << 40):
        files = archive.entry(archive.names[1])["files"]
        files["full"]["size"] = size
        archive.changes[archive.names[1]] = {"files": files}
        with pytest.raises(DataError, match="expected 1 to 1,073,741,824 bytes"):
            fetch(archive, tmp_path)
    assert archive.names[1] not in archive.fetched()


def test_links_are_not_followed(archive: Archive, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.jpg"
    root.mkdir()
    outside.write_bytes(archive.files[archive.names[0]])
    size = outside.stat().st_size
    for target in (root / f"{archive.names[0]}.jpg", root / "metadata.csv.link"):
        target.symlink_to(outside)
    files = archive.entry(archive.names[0])["files"]
    del files["full"]["size"]  # or the length of the link alone would tell
    archive.changes[archive.names[0]] = {"files": files}
    fetch(archive, root)
    assert outside.stat().st_size == size
    assert not (root / f"{archive.names[0]}.jpg").is_symlink()
    assert_whole(archive, root)


def test_an_expired_address_is_asked_for_again(archive: Archive, tmp_path: Path) -> None:
    archive.signature = "new"
    old = archive.entry(archive.names[4])
    old["files"]["full"]["url"] = old["files"]["full"]["url"].replace("new", "old")
    listed = iter([old])
    original = archive.entry

    def entry(name: str) -> dict[str, Any]:
        return next(listed, original(name)) if name == archive.names[4] else original(name)

    archive.entry = entry  # type: ignore[method-assign]
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert archive.fetched()[archive.names[4]] == 2


def test_a_folder_holds_one_query(archive: Archive, tmp_path: Path) -> None:
    fetch(archive, tmp_path, Request("sex:male"))
    with pytest.raises(ConfigError, match="query: 'sex:male' -> 'sex:female'"):
        fetch(archive, tmp_path, Request("sex:female"))
    with pytest.raises(ConfigError, match=r"collections: \[\] -> \[1\]"):
        fetch(archive, tmp_path, Request("sex:male", (1,)))


def test_a_table_of_somebody_else_is_not_lost(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("mine")
    with pytest.raises(ConfigError, match="not written by this command"):
        fetch(archive, tmp_path)
    assert (tmp_path / "metadata.csv").read_text() == "mine"
    assert not archive.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_workers": 0}, "n_workers: expected 1 to 32"),
        ({"n_workers": 33}, "n_workers: expected 1 to 32"),
        ({"api": "isic"}, "api: expected an address"),
    ],
)
def test_options_that_cannot_be(
    archive: Archive, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fetch(archive, tmp_path, **options)


def test_requests_that_cannot_be(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit: expected at least 1"):
        Request(limit=0)
    for wrong in ((-1,), ("a",), "5"):
        with pytest.raises(ConfigError, match="collections: expected numbers"):
            Request(collections=wrong)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        fetch(archive, tmp_path / "file" / "root")


def test_no_space_is_said_before(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(map(len, archive.files.values()))
    usage = type("Usage", (), {"free": total - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(IsicError, match=f"{total - 1:,} bytes free, and {total:,} more are needed"):
        fetch(archive, tmp_path)
    assert not archive.fetched()
    fetch(archive, tmp_path, Request(limit=3))
    with pytest.raises(ConfigError):
        fetch(archive, tmp_path, Request("sex:male"))
    fetch(archive, tmp_path)  # what is there already needs no more space
    assert_whole(archive, tmp_path)


def test_a_full_disk_says_bytes(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        IsicError, match=r"the disk is full: [\d,]+ bytes free at .*COMMAND"
    ) as fault:
        fetch(archive, tmp_path)
    assert fault.value.exit_code == 1
    monkeypatch.setattr(os, "fsync", original)
    there = {p.stem for p in tmp_path.glob("ISIC*.jpg")}
    assert all((tmp_path / f"{n}.jpg").read_bytes() == archive.files[n] for n in there)
    assert not list(tmp_path.glob(f"{PREFIX}*"))
    archive.asked.clear()
    fetch(archive, tmp_path)
    assert not set(archive.fetched()) & there
    assert_whole(archive, tmp_path)


def test_no_network(tmp_path: Path) -> None:
    with served(Archive(1)) as archive:
        pass
    with pytest.raises(IsicError) as caught:
        fetch(archive, tmp_path)
    message = str(caught.value)
    assert caught.value.exit_code == 1
    assert "ConnectError" in message
    assert "attempt 3 of 3" in message
    assert "snapshots/ISIC_images.zip" in message


def test_an_address_without_an_api(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(IsicError, match="answered 404: .*Not Found") as caught:
        fetch(archive, tmp_path, api=archive.url.removesuffix("v2") + "v3")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "download.json").exists()


def test_a_network_that_goes_away(archive: Archive, tmp_path: Path) -> None:
    archive.fault = lambda path, nth: "reset" if path.endswith(".jpg") else None
    with pytest.raises(IsicError, match="images are whole") as caught:
        fetch(archive, tmp_path, n_workers=1)
    assert not isinstance(caught.value, DataError)  # it is not given image after image a chance


def test_an_api_that_goes_away_between_pages(archive: Archive, tmp_path: Path) -> None:
    archive.fault = lambda path, nth: "500" if path == "/images/search/" and nth > 1 else None
    with pytest.raises(IsicError, match="status 500") as caught:
        fetch(archive, tmp_path)
    assert caught.value.exit_code == 1
    archive.fault = lambda path, nth: None
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
    assert set(archive.fetched().values()) == {1}


def test_several_threads_fetch_at_once(tmp_path: Path) -> None:
    with served(Archive(24)) as archive:
        archive.delay = 0.05
        start = time.monotonic()
        fetch(archive, tmp_path, n_workers=12)
        assert time.monotonic() - start < 24 * archive.delay / 2
        assert_whole(archive, tmp_path)


def test_what_was_left_half_written_is_swept(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}123-ISIC_0000000.jpg").write_bytes(b"half")
    fetch(archive, tmp_path)
    assert_whole(archive, tmp_path)
