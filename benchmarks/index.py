"""The index of an archive of ISIC 2024's size: seconds and memory, first and from the cache.

The table is a generated one of 401,059 rows and 55 columns; medians of rounds in turn. Peak memory
is that of a fresh process that builds the index, imports included.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.tiles import KEYS, bench_root
from isic.acquire.synthetic.isic2024 import write_isic2024
from isic.index.cache import cached_index
from isic.index.isic2024 import build_index

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
BUILT_WITHIN, CACHED_WITHIN, MEMORY_WITHIN = 3.0, 0.5, 1.5  # s, s, GB
# VmHWM: ru_maxrss would still hold what the parent had when it forked.
_PEAK = """
import re, sys
from pathlib import Path
from isic.index.isic2024 import build_index
build_index(Path(sys.argv[1]))
kilobytes = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
print(int(kilobytes) / 2**20)
"""


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(*, keys: int = KEYS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure every bar; each has name, ours, baseline, ratio, target and ok."""
    root, cache = bench_root() / f"tables{keys}", bench_root() / "index"
    write_isic2024(root, n_images=keys, n_test=3, images=False)
    cached_index(build_index, root, cache_root=cache)
    calls = {
        "built": lambda: build_index(root),
        "cached": lambda: cached_index(build_index, root, cache_root=cache),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    median = {name: statistics.median(values) for name, values in taken.items()}
    command = [sys.executable, "-c", _PEAK, str(root)]
    peak = float(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    within = [
        (f"index: {keys:,} rows built, s", median["built"], BUILT_WITHIN),
        (f"index: {keys:,} rows from the cache, s", median["cached"], CACHED_WITHIN),
        ("index: peak memory, GB", peak, MEMORY_WITHIN),
    ]
    bars = [
        {"name": name, "ours": ours, "baseline": limit, "ratio": limit / ours, "target": 1.0}
        for name, ours, limit in within
    ]
    return [{**bar, "ok": bar["ratio"] >= bar["target"]} for bar in bars]


if __name__ == "__main__":
    from benchmarks.run import line

    for found in run():
        print(line(found))
