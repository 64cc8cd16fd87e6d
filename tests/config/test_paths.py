"""Every path option against every odd spelling: from the typed word to the config of the command.

The words go through the whole of Hydra; a few commands then run to their end in
tests/test_typed_paths.py.
"""

import os
import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from isic.cli import CONF, _take_paths
from isic.config import SCHEMAS
from isic.config.paths import (
    SEVERAL,
    SINGLE,
    expand_variables,
    is_path_key,
    typed_path,
)
from isic.config.words import as_typed, checked_words, quoted_form
from isic.errors import ConfigError

# Option -> the command that has it, and what else the command line wants for it.
OPTIONS = {
    "data.root": ("train", []),
    "data.index.images": ("train", []),
    "data.index.table": ("train", ["data=folder"]),
    "data.index.roots.isic2019": ("train", ["data=merged"]),
    "data.extra": ("train", []),
    "split.file": ("train", []),
    "model.pretrained": ("train", []),
    "model.backbone": ("train", ["model=hf"]),
    "distill.teacher": ("train", ["distill=run"]),
    "ckpt": ("predict", []),
    "stack": ("predict", []),
    "images": ("predict", []),
    "output": ("predict", []),
    "runs": ("stack", []),
    "predictions": ("pseudo", []),
    "storage": ("sweep", []),
    "paths.runs": ("train", []),
    "paths.cache": ("check", []),
}
SPELLINGS = [
    *("plain", "a/b", "../up", "./here", "slash/", "a/../b", "/abs/olute"),
    *("a b", " a", "a ", "a=b", "pa(r)en", "br[x]", "[x]y", "ha#sh", "quo'te", "a;b", "a&b"),
    *('dou"ble', "a{b}", "a%b", "a?b", "a*b", "a:b", "a!b", "a@b", "a|b", "a$b", "back\\slash"),
    *("end\\", "007", "1e3", "2024_01", "0x10", "1.0", "nan", "-x", "+x", "ünï", "日本"),
    *("null_", "truely", "a'b\"c", "it's=(odd) [x]#;&"),
]


@pytest.fixture(autouse=True)
def schemas() -> None:
    """As a command registers them with Hydra."""
    for schema, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{schema}_schema", node=node)


def composed(name: str, *words: str) -> Any:
    """The config of a command line, as its task sees it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(name, overrides=checked_words(list(words)))
    _take_paths(cfg)
    return cfg


def test_every_path_option_is_in_the_matrix() -> None:
    for pattern in (*SINGLE, *SEVERAL):
        if not pattern.startswith("hydra."):
            assert any(is_path_key(key, [pattern]) for key in OPTIONS), pattern


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_takes_every_spelling_to_the_last_character(key: str) -> None:
    name, others = OPTIONS[key]
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        for spelling in SPELLINGS:
            (*_, word) = checked_words([*others, f"{key}={spelling}"])
            wanted = spelling
            if spelling == "it's=(odd) [x]#;&":  # composing all would take a minute
                cfg = compose(name, overrides=[*others, word])
                _take_paths(cfg)
                assert OmegaConf.select(cfg, key) == wanted
            assert parsed(word) == wanted, word


def parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if not s.endswith("\\")] + ["co,mma"])
def test_the_quoted_form_is_what_a_shell_passes_on(spelling: str) -> None:
    (word,) = shlex.split(quoted_form("data.root", spelling))
    assert as_typed(word, sweeps=False) == word
    assert parsed(word) == spelling


@pytest.mark.parametrize("key", sorted(OPTIONS))
def test_a_comma_is_refused_with_the_quoted_form(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        as_typed(f"{key}=co,mma", sweeps=False)
    assert f"'{key}=\"co,mma\"'" in str(refused.value)
    assert (f"{key}=[co,mma]" in str(refused.value)) == (key in SEVERAL)
    assert parsed(as_typed(f'{key}="co,mma"', sweeps=False)) == "co,mma"


@pytest.mark.parametrize("key", SEVERAL)
def test_a_list_holds_texts(key: str) -> None:
    assert parsed(as_typed(f"{key}=[2024_01, a=b,pa(r)en]", sweeps=False)) == [
        *("2024_01", "a=b", "pa(r)en")
    ]
    assert parsed(as_typed(f"{key}=['a,b',c]", sweeps=False)) == ["a,b", "c"]
    assert parsed(as_typed(f"{key}=[]", sweeps=False)) == []


def test_jobs_of_a_multirun_are_told_apart_by_commas() -> None:
    word = as_typed("data.root=a=b,../007", sweeps=True)
    assert [str(v.text) for v in parsed(word).list] == ["a=b", "../007"]
    odd = as_typed("data.root=it's (odd) [x],[y]", sweeps=True)
    assert [str(v.text) for v in parsed(odd).list] == ["it's (odd) [x]", "[y]"]
    lists = as_typed("runs=[a],[b]", sweeps=True)
    assert [[str(i) for i in v] for v in parsed(lists).list] == [["a"], ["b"]]
    assert as_typed("data.root=choice(a,b)", sweeps=True) == "data.root=choice(a,b)"


@pytest.mark.parametrize("word", ["images=false", "model.pretrained=true", "output=null", "seed=1",
    "query=a=b", "data.root=${oc.env:HOME}/x", "~data.root", "data=isic2019"])  # fmt: skip
def test_other_words_stay_as_they_are(word: str) -> None:
    assert as_typed(word, sweeps=False) == word


def test_the_home_folder_is_expanded_in_words_variables_and_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ISIC_RUNS_ROOT", "~/runs")
    monkeypatch.setenv("ISIC_DATA_ROOT", "~/data")
    monkeypatch.setenv("ISIC_CACHE_ROOT", "")
    expand_variables()
    cfg = composed("train", "data.extra=[~/a.csv,b.csv]", "split.file=~/s.csv", "paths.cache=~/c")
    assert cfg.paths.runs == f"{tmp_path}/runs" and cfg.data.root == f"{tmp_path}/data/isic2024"
    assert cfg.data.extra == [f"{tmp_path}/a.csv", "b.csv"]
    assert cfg.split.file == f"{tmp_path}/s.csv" and cfg.paths.cache == f"{tmp_path}/c"
    assert cfg.hydra.sweep.dir if "hydra" in cfg else True
    assert composed("sweep", "storage=sqlite:///~/s.db").storage == f"sqlite:///{tmp_path}/s.db"
    assert composed("sweep", "storage=journal:~/s.log").storage == f"journal:{tmp_path}/s.log"
    address = "postgresql://me@~/x"
    assert composed("sweep", f"storage={address}").storage == address


def test_an_empty_variable_is_not_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ISIC_RUNS_ROOT": " ", "ISIC_DATA_ROOT": "", "HOME": ""}
    expand_variables(environment)
    assert environment == {"HOME": ""}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_in_the_form_that_is_on_disk(
    tmp_path: Path, forms: tuple[str, str]
) -> None:
    on_disk, asked = (unicodedata.normalize(form, "Müller/é") for form in forms)
    (tmp_path / on_disk).mkdir(parents=True)
    assert typed_path(tmp_path / asked) == tmp_path / on_disk
    assert typed_path(tmp_path / asked / "new") == tmp_path / on_disk / "new"
    (tmp_path / asked).mkdir(parents=True)  # both are there: nothing is guessed
    assert typed_path(tmp_path / asked) == tmp_path / asked


def test_nothing_but_the_home_folder_and_accents_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for spelling in ("link/../x", "real/", "./link", "../" + tmp_path.name, "none"):
        assert composed("check", f"data.root={spelling}").data.root == spelling
        assert typed_path(spelling) == Path(spelling)


def test_a_root_that_is_no_utf8_is_refused_in_good_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b"Gr\xfc")
    (odd / "d").mkdir(parents=True)
    (tmp_path / "link").symlink_to(odd)
    monkeypatch.chdir(odd)
    for given in (str(odd), "d", str(tmp_path / "link")):
        with pytest.raises(ConfigError, match=r"data.root: expected .*UTF-8.*Gr.udcfc.*rename"):
            composed("check", f"data.root={given}")


def test_a_path_cut_at_a_space_by_the_shell() -> None:
    with pytest.raises(ConfigError, match="'data.root=\"/x/my folder\"'"):
        checked_words(["data.root=/x/my", "folder"])


def test_other_values_that_the_grammar_refuses_show_the_quoted_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from isic.cli import command

    for value in ("a=b", "a,b", "a(b", "a;b"):
        monkeypatch.setattr(sys, "argv", ["train.py", f"metrics.monitor={value}"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as stop:
            command("train", "tests.test_cli:job")
        error = capsys.readouterr().err
        assert stop.value.code == 2 and f"'metrics.monitor=\"{value}\"'" in error
        assert "Exception" not in error and os.linesep not in error.strip()
