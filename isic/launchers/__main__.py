"""One job of `hydra/launcher=local`: python -m isic.launchers NAME TASK OUTCOME_FILE OVERRIDE..."""

import sys
from pathlib import Path

from isic.cli import leave_on_sigterm, outcome_of
from isic.launchers.jobs import write_outcome


def main() -> None:
    """Run the job, leave how it ended in a file, exit with its code."""
    name, task, file, *overrides = sys.argv[1:]
    leave_on_sigterm(name)
    try:
        outcome = outcome_of(name, task, overrides)
    except KeyboardInterrupt:
        sys.exit(130)
    write_outcome(Path(file), outcome)
    sys.exit(outcome.exit_code)


if __name__ == "__main__":
    main()
