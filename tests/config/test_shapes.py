"""Files of plain data, read with their shape: the key, what was expected, what is there."""

import re
from pathlib import Path
from typing import Any

import pytest

from isic.config.shapes import Misshapen, check_plain, check_shape, read_stored
from isic.errors import CheckpointError, DataError

SHAPE = {
    "name": re.compile(r"[a-z]+"),
    "fold": (range(3), {"all"}),
    "rates?": [float],
    "columns?": {str: [str]},
    "state?": (type(None), {"value": int}),
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a", "fold": 2},
        {"name": "a", "fold": "all", "rates": [1, 0.5], "columns": {"x": []}, "other": object()},
        {"name": "a", "fold": 0, "state": None, "rates": ()},
        {"name": "a", "fold": 0, "state": {"value": -1}},
    ],
)
def test_what_fits(value: Any) -> None:
    check_shape(value, SHAPE)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "it: expected a mapping of keys, got []"),
        ({"fold": 1}, "name is absent"),
        ({"name": "A", "fold": 1}, "name: expected text like [a-z]+, got 'A'"),
        ({"name": "a", "fold": 3}, "fold: expected 0 to 2 or all, got 3"),
        ({"name": "a", "fold": True}, "fold: expected 0 to 2 or all, got True"),
        ({"name": "a", "fold": 1, "rates": [True]}, "rates.0: expected a number, got True"),
        ({"name": "a", "fold": 1, "rates": [float("nan")]}, "rates.0: expected a number, got nan"),
        ({"name": "a", "fold": 1, "rates": 3}, "rates: expected a list, got 3"),
        ({"name": "a", "fold": 1, "columns": {3: []}}, "columns: expected keys of text, got 3"),
        ({"name": "a", "fold": 1, "columns": {"x": [1]}}, "columns.x.0: expected text, got 1"),
        ({"name": "a", "fold": 1, "state": {"value": "x"}}, "state.value: expected a whole number"),
        ({"name": "a", "fold": 1, "state": {}}, "state.value is absent"),
        ({"name": "a", "fold": 1, "state": 1}, "state: expected null or a mapping of keys, got 1"),
        ({"name": "x" * 9 + "!", "fold": 1}, "got 'xxxxxxxxx!'"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(value: Any, said: str) -> None:
    with pytest.raises(Misshapen) as caught:
        check_shape(value, SHAPE)
    assert said in str(caught.value)


def test_plain_data_ends() -> None:
    check_plain({"a": [1, 2.5, None, True, ("x",)], 3: {}})
    endless: list[Any] = []
    endless.append(endless)
    for value in (endless, {"a": object()}, {"a": {1, 2}}, b"x"):
        with pytest.raises(Misshapen, match="no plain data|deeper than 32 levels"):
            check_plain(value)


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"x": 1}'), ("a.yaml", "x: 1\n")])
def test_a_file_is_read_or_named_with_what_to_do(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_stored(path, {"x": int}, mend="mend it") == {"x": 1}
    with pytest.raises(DataError, match=rf"{name} cannot be used: x: expected text, got 1\. mend"):
        read_stored(path, {"x": str}, mend="mend it")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name} cannot be used: No such file.*mend it"):
        read_stored(path, {}, mend="mend it", error=CheckpointError)
