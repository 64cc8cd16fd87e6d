"""The house itself: what is imported when, sizes, names, docstrings, no paths of one machine."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "pytorch_lightning", "torchmetrics", "torchvision", "timm", "hydra", "omegaconf"}
TABLES = {"pandas", "numpy", "sklearn", "scipy", "pyarrow", "h5py", "cv2", "matplotlib"}
TABLE_STAGES = ("acquire", "audit", "images", "index", "split", "prepare", "metrics", "predictions")
TABLE_STAGES += ("features", "stack", "dashboard", "assemble", "report", "runs", "config", "errors")
BANNED = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "tools"}
PYTHON_FOLDERS = ("isic", "tests", "benchmarks", "environment")


@cache
def tracked() -> tuple[Path, ...]:
    """Files that git tracks, or would with the next `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return tuple(p for name in listed.stdout.split("\0") if name and (p := ROOT / name).is_file())


def python_files(*folders: str) -> list[Path]:
    inside = [p for p in tracked() if p.suffix == ".py"]
    return [p for p in inside if p.relative_to(ROOT).parts[0] in folders]


def modules_of(stage: str) -> list[str]:
    files = [ROOT / "isic" / f"{stage}.py", *(ROOT / "isic" / stage).rglob("*.py")]
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files if f.exists()]
    return [n.removesuffix(".__init__") for n in names]


def loaded_by(code: str, argv: tuple[str, ...] = ()) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `code`, however it ends."""
    report = "import atexit, json, sys\n" + (
        "atexit.register(lambda: sys.stderr.write("
        "'\\nLOADED' + json.dumps(sorted({m.split('.')[0] for m in sys.modules}))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", report + code, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    errors, loaded = done.stderr.rsplit("LOADED", 1)
    assert done.returncode == 0, done.stdout + errors
    return set(json.loads(loaded))


def test_table_stages_load_neither_torch_nor_hydra() -> None:
    names = [m for stage in TABLE_STAGES for m in modules_of(stage)]
    assert len(names) > len(TABLE_STAGES) // 2
    loaded = loaded_by("".join(f"import {n}\n" for n in names))
    assert not loaded & HEAVY


def test_stages_load_no_torch() -> None:
    loaded = loaded_by("import isic.stages.archive, isic.stages.runs")
    assert not loaded & (HEAVY - {"hydra", "omegaconf"})


def test_importing_the_package_is_light() -> None:
    assert not loaded_by("import isic") & (HEAVY | TABLES)


@pytest.mark.parametrize("script", ["train.py", "predict.py", "sweep.py"])
def test_help_loads_hydra_alone(script: str) -> None:
    code = (
        f"import runpy; sys.argv[0] = '{script}'; runpy.run_path('{script}', run_name='__main__')"
    )
    loaded = loaded_by(code, ("--help",))
    assert "hydra" in loaded
    assert not loaded & (HEAVY - {"hydra", "omegaconf"})
    assert not loaded & {"pandas", "sklearn", "scipy", "pyarrow", "matplotlib", "wandb"}


def test_every_module_says_what_it_is() -> None:
    texts = {p: p.read_text(encoding="utf-8") for p in python_files(*PYTHON_FOLDERS)}
    silent = [str(p) for p, t in texts.items() if t.strip() and not ast.get_docstring(ast.parse(t))]
    assert not silent, f"no module docstring: {silent}"


def test_sizes_stay_within_the_budget() -> None:
    long = []
    for path in python_files("isic", "environment"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 300:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines, at most 300")
        long += [
            f"{path.relative_to(ROOT)}:{f.lineno} {f.name}: {body_lines(f)} lines, at most 50"
            for f in ast.walk(ast.parse(text))
            if isinstance(f, ast.FunctionDef) and body_lines(f) > 50
        ]
    assert not long, "\n".join(long)


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_names_say_something() -> None:
    names = {p: set(p.relative_to(ROOT).with_suffix("").parts) for p in python_files("isic")}
    assert not [str(p) for p, parts in names.items() if parts & BANNED]


def test_no_paths_of_one_machine() -> None:
    # Written in pieces, so that this file does not find itself.
    folders = "|".join(["work", "tmp", "root"])
    machine = re.compile(f"(?<![A-Za-z0-9_.}}])/({folders})/")
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{i}: {line}" for i, line in enumerate(lines, 1) if machine.search(line)]
    assert not found, "\n".join(found)


def test_constraints_name_no_build_path_or_index() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(pins)
