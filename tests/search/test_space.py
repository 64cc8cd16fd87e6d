"""Spaces: what a line means, what is drawn together, and what cannot be meant."""

from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from isic.cli import CONF
from isic.errors import ConfigError
from isic.search.space import read_space, suggest

SPACE = {
    "optim.optimizer.lr": {"float": [1e-5, 1e-2], "log": True},
    "model.dropout": {"float": [0, 0.6], "step": 0.1},
    "data.batch_size": [32, 64],
    "sampler": {"choice": ["shuffle", "negatives", "patient_cap"]},
    "sampler.ratio": {"int": [1, 20], "when": {"sampler": ["negatives"]}},
    "loss.label_smoothing": {"float": [0, 0.1], "when": {"data.batch_size": 64}},
}


def test_a_line_is_the_distribution_that_it_says() -> None:
    distributions = [p.distribution for p in read_space(SPACE)]
    assert distributions == [
        FloatDistribution(1e-5, 1e-2, log=True),
        FloatDistribution(0.0, 0.6, step=0.1),
        CategoricalDistribution((32, 64)),
        CategoricalDistribution(("shuffle", "negatives", "patient_cap")),
        IntDistribution(1, 20),
        FloatDistribution(0.0, 0.1),
    ]


def test_a_parameter_is_drawn_only_where_its_condition_holds() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = read_space(SPACE)
    drawn = [suggest(space, study.ask()) for _ in range(40)]
    for chosen in drawn:
        assert ("sampler.ratio" in chosen) == (chosen["sampler"] == "negatives")
        assert ("loss.label_smoothing" in chosen) == (chosen["data.batch_size"] == 64)
    assert {"sampler.ratio" in chosen for chosen in drawn} == {True, False}


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("a.b", 3, "expected a list of values, {float: .* got 3"),
        ("a.b", {"float": [1, 2], "int": [1, 2]}, "expected a list of values"),
        ("a.b", {"float": [1e-2, 1e-5]}, r"expected float: \[low, high\]"),
        ("a.b", {"float": ["1e-5", 1]}, r"expected float: \[low, high\]"),
        ("a.b", {"int": [1, 2.5]}, r"expected int: \[low, high\]"),
        ("a.b", {"float": [0, 1], "log": True}, "a.b: .*low"),
        ("a.b", {"float": [0, 1], "lgo": True}, "takes no `lgo`.* Did you mean log"),
        ("a.b", [], "expected different words or numbers"),
        ("a.b", [1, 1], "expected different words or numbers"),
        ("a.b", [[1, 2]], "expected different words or numbers"),
        ("a.b", {"choice": [1, 2], "log": True}, "neither log nor step"),
        ("a.b", {"int": [1, 2], "when": "sampler"}, "expected when:"),
        ("a.b", {"int": [1, 2], "when": {"samplr": "shuffle"}}, "Did you mean sampler"),
        ("a.b", {"int": [1, 2], "when": {"sampler": "shufle"}}, r"never \['shufle'\]"),
        ("fold", [0, 1], "fold cannot be tried"),
        ("data", ["isic2019", "isic2020"], "data cannot be tried"),
        ("data.root", ["a", "b"], "data.root cannot be tried"),
        ("split.seed", [0, 1], "split.seed cannot be tried"),
        ("metrics.monitor", ["val/auc"], "metrics.monitor cannot be tried"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space({"sampler": ["shuffle", "negatives"], name: spec})


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no parameter"):
        read_space({})


@pytest.mark.parametrize("path", sorted((CONF / "space").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_spaces_that_ship_are_read(path: Any) -> None:
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path))
    assert len(read_space(content)) == len(yaml.safe_load(path.read_text()))
