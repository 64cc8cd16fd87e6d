"""One rank of `isic.engine.launch.relaunch`: python -m isic.engine FROZEN_CONFIG.

Its exit code is seen by torchrun alone, which ends the other ranks; the parent says what it means.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import yaml

from isic.engine.fold import fit_fold
from isic.errors import IsicError
from isic.workers import die_with_parent


def main() -> None:
    """Train the fold of a frozen config; only the first rank speaks."""
    die_with_parent()
    first = os.environ.get("RANK", "0") == "0"
    if first:  # it has a W&B run to end; others go at once, even where they wait for a dead rank
        signal.signal(signal.SIGTERM, _terminate)
    level = logging.INFO if first else logging.ERROR
    logging.basicConfig(format="%(message)s", level=level, stream=sys.stderr)
    try:
        fit_fold(yaml.safe_load(Path(sys.argv[1]).read_text()))
    except IsicError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    main()
