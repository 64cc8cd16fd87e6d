"""Sweeps: a space of settings -> an Optuna study whose trials are trainings of their own.

`start.sweep` is what `sweep.py` calls; `study` founds the study or joins it, and `loop` is a worker
at it. The way of a trial: `slots` claims it in the `storage` that all workers share, `space` draws
its settings, `compose` makes them a config, `forks` runs it in a process tree of its own, `trial`
reads its epochs and ends it where the pruner says so, and `results` keeps the weights of the best.
`options` checks what was asked, `server` is the process that `forks` asks for a fork, and `alive`
tells a dead worker from a slow one.
A worker holds no torch: what trains is never the process that remembers.
"""
