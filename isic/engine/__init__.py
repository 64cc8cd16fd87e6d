"""The torch side, composed: config -> archive, split, pack, network, trainer -> predictions, score.

`start.fit` trains one fold, `apply.predict` applies checkpoints or a stack. Everything that is
learnt or decided lies in the packages below; this one only connects them. Importing the package
imports no torch: `finished` answers a command that has nothing to train.
"""
