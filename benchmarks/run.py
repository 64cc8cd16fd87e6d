"""Run every benchmark, or those named: `python benchmarks/run.py startup metrics`.

Each module's `run()` returns its bars as mappings of name, ours, baseline, ratio, target, ok. One
line a bar goes to the screen, all of them to benchmarks/results.json. A bar that falls short is
printed, not an error; a benchmark that breaks ends with 1 after the others have run.
"""

import importlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
MODULES = (
    "startup",
    "metrics",
    "index",
    "loader",
    "originals",
    "overhead",
    "timm_loop",
    "check",
    "features",
    "stack",
    "sweep",
)
FIELDS = ("name", "ours", "baseline", "ratio", "target", "ok")
VERSIONS = ("torch", "pytorch-lightning", "timm", "numpy", "opencv-python-headless", "simplejpeg")


def machine() -> str:
    """CPU model, cores this process may use, and the versions that decide speed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    cpu = models[0] if models else platform.processor()
    return f"{cpu}, {cores} cores, Python {platform.python_version()}, {versions}"


def line(bar: Mapping[str, Any]) -> str:
    """`name ours baseline ratio target ok|short`, in columns."""
    numbers = "".join(f" {bar[key]:>10.5g}" for key in ("ours", "baseline", "ratio", "target"))
    return f"{bar['name']:<64}{numbers}  {'ok' if bar['ok'] else 'short'}"


def plain(value: Any) -> Any:
    """A NumPy scalar as the Python number JSON knows."""
    return value.item() if hasattr(value, "item") else value


def measure(names: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Run the named modules one after the other; the bars, and the modules that broke."""
    bars, broken = [], []
    for name in names:
        try:
            made = importlib.import_module(f"benchmarks.{name}").run()
        except Exception:  # one broken benchmark must not cost the others their hour
            traceback.print_exc()
            broken.append(name)
            continue
        for bar in made:
            bars.append({key: plain(bar[key]) for key in FIELDS})
            print(line(bars[-1]), flush=True)
    return bars, broken


def main() -> int:
    """Measure, print and write results.json, keeping the bars of modules not run this time."""
    logging.basicConfig(level=logging.INFO, format="# %(message)s")  # what a bar leaves out
    print(machine(), flush=True)
    print(f"{'name':<64}{'ours':>11}{'baseline':>11}{'ratio':>11}{'target':>11}")
    bars, broken = measure(sys.argv[1:] or MODULES)
    if sys.argv[1:] and RESULTS.exists():
        new = {bar["name"] for bar in bars}
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))
        bars = [bar for bar in kept if bar["name"] not in new] + bars
    RESULTS.write_text(json.dumps(bars, indent=2) + "\n", encoding="utf-8")
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    # A script's own folder comes first on the path; there `metrics` would be ours, not the world's.
    sys.path[0] = str(ROOT)
    sys.exit(main())
