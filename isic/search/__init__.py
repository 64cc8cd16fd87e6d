"""Sweeps: a space of settings -> an Optuna study whose trials are trainings of their own.

`start.sweep` is what `sweep.py` calls. The way of a trial: `slots` claims it in the `storage` that
all workers share, `space` draws its settings, `compose` makes them a config, `forks` runs it in a
process tree of its own, `trial` reads its epochs and ends it where the pruner says so, and
`results` keeps the weights of the best. A worker holds no torch: what trains is never the process
that remembers.
"""
