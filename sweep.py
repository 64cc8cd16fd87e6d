"""Try settings of a model: python sweep.py model=effnetv2 data=isic2024 space=image n_trials=50."""

import sys

from isic.cli import command

if __name__ == "__main__":
    # space=stack, or one of your own as stack_wide: trials share the keys of python -m isic stack
    stacks = any(word.startswith("space=stack") for word in sys.argv[1:])
    command("sweep_stack" if stacks else "sweep", "isic.search.start:sweep")
