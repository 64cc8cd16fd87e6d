"""A feature table and a split -> stacked predictions, and models that are kept as text. No torch.

| file | what it does |
|---|---|
| `resample.py` | rows of a training fold drawn again: rare classes more often, common ones less |
| `stackers.py` | estimators of conf/stacker, and two of our own: logistic, rank average |
| `cross_fit.py` | every stacker on every fold by every seed, folds and seeds side by side |
| `combine.py` | mean of probabilities or of ranks over models |
| `fitted.py` | a fitted model as native text and back; how it predicts |
| `manifest.py` | `stack.json`: what a stack needs to be applied, checked when it is opened |
| `inputs.py` | rows, folds and feature matrices of a stack, as `cross_fit` takes them |
| `feature_inputs.py` | features of every fold, fitted and selected on its training rows |
| `scores.py` | image runs read, checked against the split, laid beside the samples |
| `early.py` | early stopping on a part of the training fold, never on the held-out one |
| `leaks.py` | a fold in which an image model knows the labels |
| `importance.py` | gain and mean SHAP of each feature |
"""

from isic.stack.cross_fit import CrossFit, Plan, Task, cross_fit
from isic.stack.resample import Resample

__all__ = ["CrossFit", "Plan", "Resample", "Task", "cross_fit"]
