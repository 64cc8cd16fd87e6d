"""Texts of LightGBM, XGBoost and CatBoost, checked before their libraries read them.

All take a model as it is: an index of a node, a feature or a class that lies outside is read, or
written, wherever in memory it points, and a node that is its own child is walked for ever. A stack
may come from anybody, and no checksum in it stops who made it.
Sources: LightGBM's `src/io/tree.cpp` and `gbdt_model_text.cpp`, XGBoost's `doc/model.schema`.
Trap: LightGBM finds trees by `tree_sizes`, so that the text may read otherwise than its lines say;
`plain_lightgbm` leaves that line out. Models of categories, which stacks do not fit, are refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LINES = 21  # of a tree, which LightGBM reads at most
DEEPEST = 16  # splits of a tree of CatBoost, as its own depth
_END = "\nend of trees"
_PLACES = ("feature_index", "flat_feature_index")


def plain_lightgbm(text: str, *, n_codes: int) -> str:
    """The text of a LightGBM model without `tree_sizes`.

    n_codes: Classes that the model gives, two of a binary one.

    Raises:
        ValueError: Names the tree and what in it points outside.
    """
    body, end, rest = text.partition(_END)
    if not end or "\r" in body or "\0" in body:
        raise ValueError("expected trees and `end of trees`")
    first, *trees = re.split(r"\n+(?=Tree=)", body)
    header = _pairs([line for line in first.split("\n") if "=" in line])
    classes = _whole(header, "num_class")
    if classes not in (1, n_codes) or _whole(header, "num_tree_per_iteration") != classes:
        raise ValueError(f"num_class: expected 1 or {n_codes}, got {classes}")
    objective = header.get("objective", "")
    if any(int(n) != classes for n in re.findall(r"num_class:(\d+)", objective)):
        raise ValueError(f"objective: expected {classes} classes, got {objective}")
    for i, tree in enumerate(trees):
        try:
            _check_lightgbm(_tree_lines(tree), _whole(header, "max_feature_idx") + 1)
        except ValueError as fault:
            raise ValueError(f"tree {i}: {fault}") from None
    head = "\n".join(line for line in first.split("\n") if not line.startswith("tree_sizes="))
    return "\n\n".join([head.rstrip("\n"), *(tree.rstrip("\n") + "\n" for tree in trees)]) + (
        f"\n{end}{rest}"
    )


def check_xgboost(text: str, *, n_codes: int) -> None:
    """Refuse a JSON model of XGBoost that points outside itself.

    n_codes: Classes that the model gives, two of a binary one.

    Raises:
        ValueError: Names the tree and what in it points outside.
    """
    try:
        learner = json.loads(text, object_pairs_hook=_unique)["learner"]
        param, booster = learner["learner_model_param"], learner["gradient_booster"]
        classes, n_features = int(param["num_class"]), int(param["num_feature"])
        if classes not in (0, 1, n_codes) or int(param.get("num_target", 1)) != 1:
            raise ValueError(f"num_class: expected 0 or {n_codes}, got {classes}")
        if (kind := booster["name"]) not in ("gbtree", "dart"):
            raise ValueError(f"expected the booster gbtree or dart, got {kind}")
        model = (booster if kind == "gbtree" else booster["gbtree"])["model"]
        trees, n_trees = model["trees"], len(model["trees"])
        if int(model["gbtree_model_param"]["num_trees"]) != n_trees:
            raise ValueError(f"num_trees: expected {n_trees}")
        _check_indices(model["tree_info"], n_trees, max(classes, 1), "tree_info")
        ends = model.get("iteration_indptr", [0])
        _check_indices(ends, len(ends), n_trees + 1, "iteration_indptr")
        if list(ends) != sorted(ends):
            raise ValueError("iteration_indptr: expected growing numbers")
        if kind == "dart" and len(booster["weight_drop"]) != n_trees:
            raise ValueError(f"weight_drop: expected {n_trees} numbers")
        for i, tree in enumerate(trees):
            _check_xgboost_tree(tree, n_features, f"tree {i}")
    except (KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise ValueError(f"{type(fault).__name__}: {fault}") from None


def check_catboost(text: str, *, n_codes: int) -> None:
    """Refuse a JSON model of CatBoost that points outside itself.

    n_codes: Classes that the model gives, two of a binary one.

    Raises:
        ValueError: Names the tree and what in it points outside.
    """
    try:
        model = json.loads(text, object_pairs_hook=_unique)
        features = model["features_info"]
        if any(found for kind, found in features.items() if kind != "float_features"):
            raise ValueError("features_info: expected numbers, got categories or texts")
        borders = sum(len(one.get("borders") or ()) for one in features["float_features"])
        places = [one[k] for one in features["float_features"] for k in _PLACES]
        _check_indices(places, len(places), 1_000_000, "features_info")
        outputs = len(model["scale_and_bias"][1])
        if outputs not in (1, n_codes):
            raise ValueError(f"scale_and_bias: expected 1 or {n_codes} outputs, got {outputs}")
        for i, tree in enumerate(model.get("oblivious_trees") or ()):
            _check_splits(tree["splits"] or (), borders, f"tree {i}")
            _check_leaves(tree, 2 ** len(tree["splits"] or ()), outputs, f"tree {i}")
        for i, tree in enumerate(model.get("trees") or ()):
            _check_nested(tree, borders, outputs, f"tree {i}")
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as fault:
        raise ValueError(f"{type(fault).__name__}: {fault}") from None


def _check_splits(splits: Sequence[Mapping[str, Any]], borders: int, where: str) -> None:
    if len(splits) > DEEPEST or any(s["split_type"] != "FloatFeature" for s in splits):
        raise ValueError(f"{where}: splits: expected up to {DEEPEST} of numbers")
    found = [split["split_index"] for split in splits]
    _check_indices(found, len(splits), borders, f"{where}: split_index")


def _check_leaves(tree: Mapping[str, Any], leaves: int, outputs: int, where: str) -> None:
    if len(tree["leaf_values"]) != leaves * outputs:
        raise ValueError(f"{where}: leaf_values: expected {leaves * outputs}")
    if (weights := tree.get("leaf_weights")) and len(weights) != leaves:
        raise ValueError(f"{where}: leaf_weights: expected {leaves}")


def _check_nested(tree: Mapping[str, Any], borders: int, outputs: int, where: str) -> None:
    """A tree whose branches are not alike: nodes in nodes."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if "split" in node:
            _check_splits([node["split"]], borders, where)
            waiting += [node["left"], node["right"]]
        else:
            values = node["value"] if isinstance(node["value"], list) else [node["value"]]
            if len(values) != outputs:
                raise ValueError(f"{where}: value: expected {outputs}, got {len(values)}")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two equal keys parsers take the one or the other."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    pairs = dict(line.split("=", 1) for line in lines)
    if len(pairs) < len(lines):
        raise ValueError("a key stands twice")
    return pairs


def _tree_lines(text: str) -> dict[str, str]:
    """Keys and values of one tree, whose lines end at the first blank one."""
    lines = text.rstrip("\n").split("\n")[1:]
    if len(lines) > LINES or not all(re.match(r"[a-z_]+=", line) for line in lines):
        raise ValueError(f"expected up to {LINES} lines of KEY=VALUE")
    return _pairs(lines)


def _whole(pairs: Mapping[str, str], key: str) -> int:
    found = pairs.get(key, "")
    if not re.fullmatch(r"\d{1,7}", found):
        raise ValueError(f"{key}: expected a whole number, got {found[:40]!r}")
    return int(found)


def _check_lightgbm(tree: Mapping[str, str], n_features: int) -> None:
    n = _whole(tree, "num_leaves")
    nodes = max(n - 1, 0)

    def values(key: str, count: int) -> list[str]:
        found = tree.get(key, "").split()
        if len(found) != count:
            raise ValueError(f"{key}: expected {count} values, got {len(found)}")
        return found

    def integers(key: str, count: int) -> list[int]:
        return [int(value) for value in values(key, count)]

    if n < 1 or _whole(tree, "num_cat"):
        raise ValueError("expected leaves, and no categories")
    values("leaf_value", n)
    for key in tree:
        if tree[key] and key in ("leaf_weight", "leaf_count"):
            values(key, n)
        elif tree[key] and key in ("split_gain", "internal_value", "internal_weight"):
            values(key, nodes)
    if nodes:
        values("threshold", nodes)
        _check_indices(integers("split_feature", nodes), nodes, n_features, "split_feature")
        if any(kind & 1 for kind in integers("decision_type", nodes)):
            raise ValueError("decision_type: expected numbers, got categories")
        both = zip(integers("left_child", nodes), integers("right_child", nodes), strict=True)
        children = [tuple(pair) for pair in both]
        for pair in children:
            if not all(-n <= child < nodes for child in pair):
                raise ValueError(f"children: expected {nodes} nodes and {n} leaves, got {pair}")
        _check_walk([[c for c in pair if c >= 0] for pair in children])
    if tree.get("is_linear", "0") != "0":
        values("leaf_const", n)
        counts = integers("num_features", n)
        used = integers("leaf_features", sum(counts)) if min(counts) >= 0 else [-1]
        _check_indices(used, len(used), n_features, "leaf_features")
        values("leaf_coeff", len(used))


def _check_xgboost_tree(tree: Mapping[str, Any], n_features: int, where: str) -> None:
    param = tree["tree_param"]
    n = int(param["num_nodes"])
    if n < 1 or int(param.get("size_leaf_vector", 0)) > 1:
        raise ValueError(f"{where}: expected nodes whose leaves hold one number")
    if any(tree.get("categories") or ()) or any(tree.get("split_type") or ()):
        raise ValueError(f"{where}: expected numbers, got categories")
    for key in ("split_conditions", "default_left", "base_weights", "parents"):
        if len(tree[key]) != n:
            raise ValueError(f"{where}: {key}: expected {n} values, got {len(tree[key])}")
    left, right = tree["left_children"], tree["right_children"]
    for key, found in (("left_children", left), ("right_children", right)):
        _check_indices(found, n, n, f"{where}: {key}", lowest=-1)
    inner = [i for i in range(n) if left[i] >= 0 or right[i] >= 0]
    if any(min(left[i], right[i]) < 0 for i in inner):
        raise ValueError(f"{where}: a node has one child")
    _check_indices(tree["split_indices"], n, 2**31, f"{where}: split_indices")
    if any(tree["split_indices"][i] >= n_features for i in inner):
        raise ValueError(f"{where}: split_indices: expected {n_features} features")
    _check_walk([[c for c in pair if c >= 0] for pair in zip(left, right, strict=True)], where)


def _check_indices(found: Any, count: int, end: int, key: str, *, lowest: int = 0) -> None:
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{key}: expected a list of {count}")
    if odd := [i for i in found if type(i) is not int or not lowest <= i < end]:
        raise ValueError(f"{key}: expected {lowest} to {end - 1}, got {odd[0]!r}")


def _check_walk(children: Sequence[Sequence[int]], where: str = "children") -> None:
    """Refuse nodes that the root leads to twice: a walk would not end."""
    seen, waiting = {0}, [0]
    while waiting:
        for child in children[waiting.pop()]:
            if child in seen:
                raise ValueError(f"{where}: node {child} is reached twice")
            seen.add(child)
            waiting.append(child)
