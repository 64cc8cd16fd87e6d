"""Model outputs as files: written by a run, joined over folds, averaged, submitted, scored.

No torch here: the table stages start from these files.
"""

from isic.predictions.ensemble import ensemble
from isic.predictions.scorecard import read_score, score, score_line, write_score
from isic.predictions.store import assemble_oof, read_predictions, write_predictions
from isic.predictions.submission import validate_submission, write_submission
from isic.predictions.table import probabilities

__all__ = [
    "assemble_oof",
    "ensemble",
    "probabilities",
    "read_predictions",
    "read_score",
    "score",
    "score_line",
    "validate_submission",
    "write_predictions",
    "write_score",
    "write_submission",
]
