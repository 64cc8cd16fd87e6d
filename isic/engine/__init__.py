"""The torch side, composed: config -> archive, split, pack, network, trainer -> predictions, score.

`fit` trains one fold; `predict` applies checkpoints or a stack. Everything that is learnt or
decided lies in the packages below; this one only connects them.
"""

from isic.engine.apply import predict
from isic.engine.fold import fit, fit_fold

__all__ = ["fit", "fit_fold", "predict"]
