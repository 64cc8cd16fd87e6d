"""A space: which settings a sweep tries, as conf/space/*.yaml says it.

One line a parameter, its key as on the command line:

    optim.optimizer.lr: {float: [1.0e-5, 1.0e-2], log: true}
    data.batch_size: [32, 64, 128]
    sampler: [shuffle, negatives]                                  # a config group
    sampler.ratio: {int: [1, 20], log: true, when: {sampler: negatives}}

A parameter with `when` exists only where the one it names, which stands above it, has that value or
one of those. YAML reads `1e-5` as a number here, and `yes` as a word. Thresholds have no space:
`isic.predictions.thresholds` fits them to finished predictions, nested, in less time than a trial.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from isic.errors import ConfigError

KINDS = ("float", "int", "choice")
FURTHER = ("log", "step", "when")
FIXED = (
    "fold name overwrite evaluate paths logger metrics folds split experiment data "
    "data.root data.index data.fraction data.extra data.missing_images data.on_bad_image "
    "data.max_megapixels"
).split()
"""What trials must share to be comparable, or what the sweep itself decides; groups and keys."""


@dataclass(frozen=True)
class Parameter:
    """One setting and the values it may take; `when`: parameter above -> values that ask for it."""

    name: str
    distribution: BaseDistribution
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a categorical one; empty for a number."""
        d = self.distribution
        return tuple(d.choices) if isinstance(d, CategoricalDistribution) else ()

    def asked_for(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the parameter exists beside these values."""
        return all(key in chosen and chosen[key] in values for key, values in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """Draw a value."""
        d = self.distribution
        if isinstance(d, FloatDistribution):
            return trial.suggest_float(self.name, d.low, d.high, log=d.log, step=d.step)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, log=d.log, step=d.step)
        return trial.suggest_categorical(self.name, self.choices)


def suggest(space: Sequence[Parameter], trial: optuna.Trial) -> dict[str, Any]:
    """Draw a value of each parameter that exists beside those drawn before it."""
    chosen: dict[str, Any] = {}
    for parameter in space:
        if parameter.asked_for(chosen):
            chosen[parameter.name] = parameter.suggest(trial)
    return chosen


def read_space(content: Mapping[str, Any]) -> list[Parameter]:
    """The parameters of a space, in the order of the file.

    Raises:
        ConfigError: Says which line cannot be meant, and what was expected.
    """
    if not content:
        raise ConfigError("space: holds no parameter")
    space: list[Parameter] = []
    for name, spec in content.items():
        head = name.partition(".")[0]
        if name in FIXED or (head in FIXED and head != "data"):
            raise ConfigError(f"space: {name} cannot be tried: trials must share it to be compared")
        space.append(_parameter(name, spec, {p.name: p for p in space}))
    return space


def _parameter(name: str, spec: Any, above: Mapping[str, Parameter]) -> Parameter:
    if isinstance(spec, list):
        spec = {"choice": spec}
    kinds = [k for k in KINDS if k in spec] if isinstance(spec, Mapping) else []
    if len(kinds) != 1:
        raise ConfigError(
            f"space: {name}: expected a list of values, {{float: [low, high]}} or "
            f"{{int: [low, high]}}, got {spec}"
        )
    for key in set(spec) - {*KINDS, *FURTHER}:
        near = difflib.get_close_matches(str(key), [*KINDS, *FURTHER], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"space: {name}: takes no `{key}`, but {', '.join(FURTHER)}.{hint}")
    kind = kinds[0]
    when = _conditions(name, spec.get("when") or {}, above)
    if kind == "choice":
        return Parameter(name, _choice(name, spec), when)
    return Parameter(name, _range(name, kind, spec), when)


def _choice(name: str, spec: Mapping[str, Any]) -> BaseDistribution:
    values = spec["choice"]
    plain = isinstance(values, list) and all(
        v is None or isinstance(v, str | bool | int | float) for v in values
    )
    if not plain or not values or len({*map(repr, values)}) < len(values):
        raise ConfigError(f"space: {name}: expected different words or numbers, got {values}")
    if "log" in spec or "step" in spec:
        raise ConfigError(f"space: {name}: a list of values takes neither log nor step")
    return CategoricalDistribution(values)


def _range(name: str, kind: str, spec: Mapping[str, Any]) -> BaseDistribution:
    bounds = spec[kind]
    numbers = (int,) if kind == "int" else (int, float)
    if (
        not isinstance(bounds, list)
        or len(bounds) != 2
        or any(isinstance(b, bool) or not isinstance(b, numbers) for b in bounds)
        or not bounds[0] < bounds[1]
    ):
        raise ConfigError(f"space: {name}: expected {kind}: [low, high], got {bounds}")
    options = {key: spec[key] for key in ("log", "step") if spec.get(key) is not None}
    try:
        if kind == "int":
            return IntDistribution(*bounds, **options)
        return FloatDistribution(float(bounds[0]), float(bounds[1]), **options)
    except ValueError as error:
        raise ConfigError(f"space: {name}: {error}") from None


def _conditions(name: str, when: Any, above: Mapping[str, Parameter]) -> dict[str, tuple[Any, ...]]:
    """`when` with its values as tuples, each of them one that the parameter above can take."""
    if not isinstance(when, Mapping):
        raise ConfigError(f"space: {name}: expected when: {{PARAMETER: value}}, got {when}")
    conditions = {}
    for key, values in when.items():
        values = tuple(values) if isinstance(values, list) else (values,)
        if key not in above:
            near = difflib.get_close_matches(str(key), list(above), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"space: {name}: when: {key} is no parameter above it.{hint}")
        unknown = [v for v in values if v not in above[key].choices]
        if unknown:
            raise ConfigError(
                f"space: {name}: when: {key} takes {list(above[key].choices)}, never {unknown}"
            )
        conditions[key] = values
    return conditions
