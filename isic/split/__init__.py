"""Stage 2: the index -> a `fold` for each labelled train sample, in a CSV that everyone reads.

`groups` ties rows together, `grouped` and `hospital` deal the groups out, `given` takes folds that
others made, `overlap` finds images that show the same; `making` composes them.
"""

from isic.split.making import fold_rows, make_split, open_split
from isic.split.options import Split, SplitOptions, training_mask

__all__ = ["Split", "SplitOptions", "fold_rows", "make_split", "open_split", "training_mask"]
