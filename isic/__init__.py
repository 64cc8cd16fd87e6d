"""Skin-lesion classification, from a challenge's raw download to a validated submission.

    acquire -> index -> split -> images -> data -> models + training -> predictions -> report
     archive    table    folds    pack     batches    checkpoints          tables      curves

`engine` connects the stages that need torch, `stages` and `assemble` those that do not; `prepare`
is what both begin with. `metrics` scores all of them. docs/design.md says why.
"""

__version__ = "0.1.0"
