"""Try settings of a model: python sweep.py model=effnetv2 data=isic2024 space=image n_trials=50."""

import sys

from isic.cli import command
from isic.errors import ConfigError
from isic.search.options import check_password

if __name__ == "__main__":
    try:
        for word in sys.argv[1:]:
            check_password(word.partition("storage=")[2])  # before Hydra writes it down
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    # space=stack, or one of your own as stack_wide: trials share the keys of python -m isic stack
    stacks = any(word.startswith("space=stack") for word in sys.argv[1:])
    command("sweep_stack" if stacks else "sweep", "isic.search.start:sweep")
