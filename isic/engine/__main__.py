"""One rank of `isic.engine.launch.relaunch`: python -m isic.engine FROZEN_CONFIG."""

import logging
import os
import sys
from pathlib import Path

import yaml

from isic.engine.fold import fit_fold


def main() -> None:
    """Train the fold of a frozen config; only the first rank speaks."""
    first = os.environ.get("RANK", "0") == "0"
    level = logging.INFO if first else logging.ERROR
    logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)
    fit_fold(yaml.safe_load(Path(sys.argv[1]).read_text()))


if __name__ == "__main__":
    main()
