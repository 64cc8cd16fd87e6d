"""`python -m isic synth`: every archive that is offered, and those that are not."""

import json
from pathlib import Path

import pytest
import yaml

from isic.acquire.synthetic import ARCHIVES
from isic.cli import CONF
from tests.commands import ForkServer

SMALL = ("n_images=24", "image_size=24", "seed=3")


def test_every_archive_has_a_generator() -> None:
    generators = {p.stem: yaml.safe_load(p.read_text()) for p in CONF.glob("generator/*.yaml")}
    named = {node["_target_"] for node in generators.values() if "_target_" in node}
    assert named == {f"isic.acquire.synthetic.write_{name}" for name in ARCHIVES}
    assert set(generators) <= {p.stem for p in CONF.glob("data/*.yaml")}


@pytest.mark.parametrize("name", [*ARCHIVES, "isic2020_diagnosis"])
def test_an_archive_by_its_name(commands: ForkServer, tmp_path: Path, name: str) -> None:
    code, text = commands.run("isic", "synth", f"data={name}", f"data.root={tmp_path}", *SMALL)
    assert code == 0, text
    mark = json.loads((tmp_path / "synthetic.json").read_text())
    assert mark["archive"] == name.removesuffix("_diagnosis")
    assert (mark["n_images"], mark["seed"], mark["size_range"]) == (24, 3, 24)


def test_another_form(commands: ForkServer, tmp_path: Path) -> None:
    arguments = ("data=isic2020", f"data.root={tmp_path}", *SMALL)
    code, text = commands.run("isic", "synth", *arguments, "generator.form=dicom")
    assert code == 0, text
    assert len(list(tmp_path.glob("train/*.dcm"))) == 24
    code, text = commands.run("isic", "synth", *arguments, "generator.form=png")
    assert code == 2
    assert "form: expected jpeg, dicom, tfrecord, got png" in text


@pytest.mark.parametrize("name", ["folder", "merged"])
def test_what_cannot_be_generated(commands: ForkServer, tmp_path: Path, name: str) -> None:
    code, text = commands.run("isic", "synth", f"data={name}", f"data.root={tmp_path}", *SMALL)
    assert code == 2
    assert f"data={name} cannot be generated; expected {', '.join(ARCHIVES)}" in text
    assert not list(tmp_path.iterdir())
