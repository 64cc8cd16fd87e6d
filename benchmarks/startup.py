"""`train.py --help` against importing what it must not import: torch, Lightning and timm.

Whole processes, interleaved so that a busy machine slows both alike; medians of wall seconds.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = [sys.executable, "train.py", "--help"]
BASELINE = [sys.executable, "-c", "import torch, pytorch_lightning, timm"]
TARGET = 0.2
ROUNDS = 5


def seconds(argv: list[str]) -> float:
    """Wall seconds of one whole process."""
    started = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def run() -> list[dict[str, object]]:
    """The one bar: our seconds, the baseline's, their ratio (lower is better)."""
    for argv in (OURS, BASELINE):
        seconds(argv)  # warms the page cache and the .pyc files of both
    pairs = [(seconds(OURS), seconds(BASELINE)) for _ in range(ROUNDS)]
    ours, baseline = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = ours / baseline
    return [
        {
            "name": "startup: train.py --help, s",
            "ours": round(ours, 3),
            "baseline": round(baseline, 3),
            "ratio": round(ratio, 3),
            "target": TARGET,
            "ok": ratio <= TARGET,
        }
    ]
