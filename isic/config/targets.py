"""The allow-list: which components a stored config may name, and how they are made.

What is stored is data. A checkpoint, a run's `config.yaml`, a stack's manifest may come from
anybody, and a `_target_` in it would else call any function of this machine. `SLOTS` says, key by
key, of which package and of which kind a target may be; at every other key there may be none.
Code that this command's own config names is trusted, code that only a file names is not.
Trap: Hydra finds a target along attributes (`isic.index.cache.pd.read_pickle`), fills in
`${oc.env:NAME}` and makes nodes inside arguments. Here a name is one attribute of one module that
defines it, text stays text, and no module is imported before its name is allowed.
"""

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from isic.errors import ConfigError

TARGET, PARTIAL = "_target_", "_partial_"
SUPPLIED = {TARGET, PARTIAL, "_args_", "_recursive_", "_convert_"}
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def locate(name: str) -> Any:
    """`package.module.attribute` as an object.

    Raises:
        ConfigError: No such module, or nothing of this name in it.
    """
    module, _, attribute = str(name).rpartition(".")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks PyPI on import
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"_target_: {name} cannot be imported: {error}") from None


def make(node: Mapping[str, Any], **given: Any) -> Any:
    """Make the object of a plain node, arguments first; `given` replaces the node's arguments.

    With `_partial_` the object is a function that takes what is still open.
    """
    target = locate(node[TARGET])
    arguments = {str(k): made(v) for k, v in node.items() if k not in SUPPLIED} | given
    return partial(target, **arguments) if node.get(PARTIAL) else target(**arguments)


def made(value: Any) -> Any:
    """A plain value, or the objects of the nodes in it."""
    if isinstance(value, Mapping):
        return make(value) if TARGET in value else {k: made(v) for k, v in value.items()}
    return [made(v) for v in value] if isinstance(value, list | tuple) else value


def targets_of(config: Any) -> frozenset[str]:
    """Every `_target_` of a plain config: the code that this command's user named."""
    if isinstance(config, Mapping):
        own = {str(config[TARGET])} if TARGET in config else set()
        return frozenset(own.union(*map(targets_of, config.values())))
    if isinstance(config, list | tuple):
        return frozenset().union(*map(targets_of, config))
    return frozenset()


@dataclass(frozen=True)
class Kind:
    """A kind of component that a stored config may name at some key.

    Attributes:
        what: For messages.
        modules: Where it is named and defined: these modules and those below them.
        fits: Whether the object itself is of the kind.
        words: Whether its arguments may hold text of letters, digits, blanks, `+` and `-` only.
        never: Arguments that it may not be given.
        later: Modules whose functions are not called while a config is read (`_partial_: true`).
    """

    what: str
    modules: tuple[str, ...]
    fits: Callable[[Any], bool]
    words: bool = True
    never: frozenset[str] = frozenset()
    later: str = "(none)"

    def refusal(self, name: str, *, imports: bool) -> str:
        """Why a name is not of this kind; empty where it is. `imports`: look at the object too."""
        expected = f"expected {self.what}, got {name}"
        if not NAME.fullmatch(name) or not self._holds(name.rpartition(".")[0]):
            return expected
        if not imports:
            return ""
        try:
            target = locate(name)
        except ConfigError as error:
            return f"{expected}: {error}"
        # what a module has only imported is of another module, or is one
        home = str(getattr(target, "__module__", ""))
        return "" if self._holds(home) and self.fits(target) else expected

    def _holds(self, module: str) -> bool:
        return any(f"{module}.".startswith(f"{m}.") for m in self.modules)


def _subclass(*names: str) -> Callable[[Any], bool]:
    """Return a test for subclasses of the named classes."""

    def fits(target: Any) -> bool:
        return isinstance(target, type) and issubclass(target, tuple(map(locate, names)))

    return fits


def _one_of(module: str, *names: str) -> Callable[[Any], bool]:
    """Return a test for the objects of these names in a module."""
    return lambda target: any(target is locate(f"{module}.{name}") for name in names)


def _class_with(*methods: str) -> Callable[[Any], bool]:
    """Return a test for classes that have these methods."""
    return lambda target: isinstance(target, type) and all(hasattr(target, m) for m in methods)


def _is_metric(target: Any) -> bool:
    """Return whether an object is a registered function of `isic.metrics` or of torchmetrics."""
    if isinstance(target, type):
        # those of other folders fetch networks from the net, to compare images or texts by
        ours = target.__module__.startswith("torchmetrics.classification.")
        return ours and _subclass("torchmetrics.Metric")(target)
    return any(target is metric for metric in locate("isic.metrics.CONFIGURABLE"))


def _is_augmentation(target: Any) -> bool:
    if _one_of("isic.data.presets", "siim_2020")(target):
        return True
    kinds = _subclass("albumentations.BasicTransform", "albumentations.BaseCompose")
    return kinds(target) and target is not locate("albumentations.Lambda")


def _is_reader(target: Any) -> bool:
    return not isinstance(target, type) and getattr(target, "__qualname__", "") == "build_index"


def _option(name: str, **more: Any) -> Kind:
    """The kind of one class of this package, wherever in its folder it is named."""
    return Kind(name, (".".join(name.split(".")[:2]),), _subclass(name), **more)


LOSS = Kind(
    "a loss: an nn.Module of isic.training, torch.nn or timm.loss",
    ("isic.training", "torch.nn", "timm.loss"),
    _subclass("torch.nn.Module"),
)
NETWORK = Kind(
    "a network: an nn.Module of isic.models", ("isic.models",), _subclass("torch.nn.Module"), False
)
METRIC = Kind(
    "a metric: a function that isic.metrics registers, or a class of torchmetrics.classification",
    ("isic.metrics", "torchmetrics"),
    _is_metric,
    later="isic.metrics",
)
READER = Kind(
    "a reader: build_index of a module of isic.index",
    ("isic.index",),
    _is_reader,
    words=False,
    later="isic.index",
)
AUGMENTATION = Kind(
    "a transform of albumentations that takes no function and reads no file, or siim_2020 of "
    "isic.data.presets",
    ("albumentations", "isic.data.presets"),
    _is_augmentation,
    never=frozenset({"read_fn", "reference_images", "font_path"}),
)
FAMILY = Kind(
    "a feature family of isic.features",
    ("isic.features",),
    _class_with("learns", "needs", "fit", "transform"),
    words=False,
)
ESTIMATOR = Kind(
    "an estimator of isic.stack, lightgbm, xgboost, catboost or sklearn",
    ("isic.stack.stackers", "lightgbm", "xgboost", "catboost", "sklearn"),
    _class_with("fit", "predict_proba"),
)

SLOTS: Mapping[str, Kind] = {
    "data": Kind(
        "a data module of isic.data",
        ("isic.data",),
        _subclass("isic.data.datamodule.LesionDataModule"),
        words=False,
    ),
    "data.index": READER,
    "metrics.functions.*": METRIC,
    "model": NETWORK,
    "model.**": replace(LOSS, what="a layer of torch.nn", modules=("isic.models", "torch.nn")),
    "transforms": Kind(
        "a transform of isic.data.transforms",
        ("isic.data.transforms",),
        _one_of("isic.data.transforms", "FastAugment", "AlbumentationsPipeline", "Resize"),
    ),
    "transforms.**": AUGMENTATION,
    "sampler": Kind(
        "a sampler of isic.data", ("isic.data",), _subclass("isic.data.sampler.TrainingBatches")
    ),
    "loss": Kind(
        "an objective of isic.training.losses",
        ("isic.training",),
        _subclass("isic.training.losses.Objective", "isic.training.losses.ByClasses"),
    ),
    "loss.**": LOSS,
    "mixing": _option("isic.training.mixing.Mixing"),
    "auxiliary": _option("isic.data.auxiliary.AuxiliaryOptions", words=False),
    "distill": _option("isic.training.distill.Distillation", words=False),
    "finetune": _option("isic.training.unfreeze.Finetune"),
    "optim": _option("isic.training.optim.WarmupCosine"),
    "optim.optimizer": Kind(
        "an optimizer of torch.optim", ("torch.optim",), _subclass("torch.optim.Optimizer")
    ),
    "split": _option("isic.split.options.SplitOptions", words=False),
    "trainer": _option("isic.training.hardware.TrainerOptions"),
    "callbacks": _option("isic.training.callbacks.CallbackOptions"),
    "logger": _option("isic.training.loggers.LoggerOptions", words=False),
    "features.*": FAMILY,
    "families.*": FAMILY,  # as stack.json calls them
    "stacker.*": ESTIMATOR,
    "selection": Kind(
        "a selection of isic.features", ("isic.features.selection",), _class_with("fit")
    ),
    "selection.estimator": ESTIMATOR,
    "selection.metric": METRIC,
    "network_class": NETWORK,  # of a checkpoint's record
}
"""What may be named at each key; `*` stands for one key, `**` for all below."""


def kind_at(path: tuple[str, ...]) -> Kind | None:
    """Return the kind of target that a key may name; None: none."""
    if exact := SLOTS.get(".".join(path)):
        return exact
    for below in (f"{'.'.join(path[:-1])}.*", f"{path[0]}.**" if len(path) > 1 else ""):
        if below in SLOTS:
            return SLOTS[below]
    return None
