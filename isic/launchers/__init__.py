"""Where the jobs of a multirun run: beside each other on this machine, or on a SLURM cluster.

`local` is the first, `slurm` the second; `jobs` is what both run and return, `__main__` one job.
`hydra_plugins/isic_launchers.py` shows these to Hydra, `conf/hydra/launcher` chooses one.
"""
