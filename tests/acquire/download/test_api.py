"""The API's objects and pages as read: strict about ids and addresses, not about columns."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isic.acquire.download.api import ArchiveApi, ArchiveImage, read_image
from isic.acquire.download.http import Refused, Unreachable
from isic.errors import ConfigError, DataError

API = "https://archive.test/api/v2/"


class Answers:
    """Connections that answer from a list and write down what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, dict[str, str]]]()

    def json(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        self.asked.append((url, dict(params or {})))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def text(self, url: str) -> str:
        return str(self.json(url))


def api(*answers: Any) -> tuple[ArchiveApi, Answers]:
    stub = Answers(*answers)
    return ArchiveApi(API.rstrip("/"), stub), stub  # type: ignore[arg-type]


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "isic_id": "ISIC_0000001",
        "copyright_license": "CC-BY",
        "attribution": "Somebody",
        "files": {"full": {"url": "https://store.test/a/b.JPG?Expires=1", "size": 3}},
        "metadata": {"acquisition": {"pixels_x": 6}, "clinical": {"sex": "male"}},
        **changes,
    }


def test_a_row_is_flat() -> None:
    image = read_image(entry(), API)
    assert (image.isic_id, image.size) == ("ISIC_0000001", 3)
    assert image.file_name == "ISIC_0000001.jpg"
    assert image.row == {
        "isic_id": "ISIC_0000001",
        "attribution": "Somebody",
        "copyright_license": "CC-BY",
        "pixels_x": "6",
        "sex": "male",
    }


@pytest.mark.parametrize(
    ("metadata", "columns"),
    [
        ({}, {}),
        (None, {}),
        ({"clinical": {"melanocytic": True, "age_approx": 50, "thick": None}, "acquisition": {}},
         {"melanocytic": "True", "age_approx": "50", "thick": ""}),
        ({"new_group": {"new": 0.5}, "plain": "x"}, {"new": "0.5", "plain": "x"}),
        ({"clinical": {"tags": ["b", "a"], "site": {"b": 1}}},
         {"tags": '["b", "a"]', "site": '{"b": 1}'}),
        ({"clinical": {"isic_id": "other", "attribution": "other"}}, {}),
    ],
)  # fmt: skip
def test_columns_come_and_go(metadata: Any, columns: dict[str, str]) -> None:
    row = read_image(entry(metadata=metadata), API).row
    own = {"isic_id": "ISIC_0000001", "attribution": "Somebody", "copyright_license": "CC-BY"}
    assert row == {**columns, **own}


def test_licence_and_attribution_may_be_absent() -> None:
    row = read_image(entry(copyright_license=None, attribution=None), API).row
    assert (row["copyright_license"], row["attribution"]) == ("", "")


@given(st.text(max_size=70))
def test_an_id_that_is_taken_is_a_plain_file_name(name: str) -> None:
    try:
        image = read_image(entry(isic_id=name), API)
    except DataError:
        assert not re.fullmatch("[A-Za-z0-9_-]{1,64}", name)
        return
    path = Path("root") / image.file_name
    assert path.parent == Path("root")
    assert path.name == f"{name}.jpg"
    assert path.name.isascii()


@pytest.mark.parametrize("broken", [None, [], "x", 3, {}, {"isic_id": None}, {"isic_id": ["a"]}])
def test_what_is_no_image(broken: Any) -> None:
    with pytest.raises(DataError, match="expected an id"):
        read_image(broken, API)


@pytest.mark.parametrize(
    "files",
    [None, {}, {"full": None}, {"full": {}}, {"full": {"url": None}}, {"full": {"url": ""}}],
)
def test_no_address(files: Any) -> None:
    with pytest.raises(DataError, match="expected files.full.url"):
        read_image(entry(files=files), API)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://s.test/x.png", "ISIC_0000001.png"),
        ("https://s.test/x.tiff?a=b.gif", "ISIC_0000001.tiff"),
        ("https://s.test/x", "ISIC_0000001.jpg"),
        ("https://s.test/x.exe", "ISIC_0000001.jpg"),
        ("/media/x.jpg", "ISIC_0000001.jpg"),
        ("https://s.test/x.png/../../y.sh", "ISIC_0000001.jpg"),
    ],
)
def test_suffixes(url: str, name: str) -> None:
    image = read_image(entry(files={"full": {"url": url, "size": 1}}), API)
    assert image.file_name == name
    assert image.url.startswith("https://")


def test_pages_follow_next_as_it_is() -> None:
    following = f"{API}images/search/?cursor=cD0y&limit=2&query=sex%3Amale"
    archive, web = api(
        {"results": [1, 2], "count": 3, "next": following},
        {"results": [3], "count": None, "next": None},
    )
    pages = list(archive.pages("sex:male", (1, 2), limit=2))
    assert [(p.results, p.count) for p in pages] == [([1, 2], 3), ([3], None)]
    assert web.asked == [
        (f"{API}images/search/", {"limit": "2", "query": "sex:male", "collections": "1,2"}),
        (following, {}),
    ]


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    archive, web = api({"results": [], "count": 0, "next": None})
    list(archive.pages("", (), limit=None))
    assert web.asked[0][1] == {"limit": "100"}


@pytest.mark.parametrize("following", [f"{API}images/search/?cursor=a", "file:///etc/passwd"])
def test_pages_that_lead_nowhere(following: str) -> None:
    page = {"results": [], "next": following}
    archive, _ = api(page, page, page)
    with pytest.raises(Unreachable, match="in a circle or nowhere"):
        list(archive.pages("", (), limit=None))


@pytest.mark.parametrize("answer", [[], {}, {"results": None}, "x", None])
def test_what_is_no_page(answer: Any) -> None:
    archive, _ = api(answer)
    with pytest.raises(Unreachable, match="expected an object with results"):
        list(archive.pages("", (), limit=None))


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (400, json.dumps({"message": "Could not parse search query."}), "Could not parse search"),
        (422, json.dumps({"detail": [{"msg": "not an integer"}]}), "not an integer"),
        (400, "plain words", "plain words"),
        (400, "[1]", "1"),
    ],
)
def test_a_query_that_is_not_understood(status: int, text: str, said: str) -> None:
    archive, _ = api(Refused(API, status, text))
    with pytest.raises(ConfigError, match=said) as caught:
        list(archive.pages("image_type:clinical", (), limit=None))
    assert "query='image_type:clinical'" in str(caught.value)
    assert "clinical: close-up" in str(caught.value)


def test_hints_only_where_they_fit() -> None:
    archive, _ = api(Refused(API, 400, "no"))
    query = '(diagnosis_1:Benign AND image_type:"clinical: overview" AND anatom_site_1:x'
    with pytest.raises(ConfigError) as caught:
        list(archive.pages(query, (), limit=None))
    assert str(caught.value).endswith(": no")


def test_sizes_and_licences_may_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    for answer in ({"size": 7}, {"size": None}, [], Refused(API, 404, ""), Unreachable(API, "x")):
        archive, _ = api(answer)
        assert archive.size("", ()) == (7 if answer == {"size": 7} else None)
    archive, web = api(Refused(API, 404, "no"), "text")
    assert "creativecommons.org/licenses/by-nc/4.0" in archive.licence("CC-BY-NC")
    assert "no text of the licence CC-BY-NC" in caplog.text
    assert archive.licence("a/../b") == "text"
    assert web.asked[1][0] == f"{API}zip-download/license-file/a%2F..%2Fb/"


def test_one_image_anew() -> None:
    archive, web = api(entry())
    assert isinstance(archive.image("ISIC_0000001"), ArchiveImage)
    assert web.asked[0][0] == f"{API}images/ISIC_0000001/"
