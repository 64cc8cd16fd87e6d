"""Try settings of a model: python sweep.py model=effnetv2 data=isic2024 space=image n_trials=50."""

import sys

from isic.cli import command

if __name__ == "__main__":
    # what trials share are the keys of another command: python -m isic stack
    stacks = "space=stack" in sys.argv[1:]
    command("sweep_stack" if stacks else "sweep", "isic.search.start:sweep")
