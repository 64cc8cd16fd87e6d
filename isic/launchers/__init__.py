"""Where the jobs of a multirun run: beside each other on this machine, or on a SLURM cluster.

`hydra_plugins/isic_launchers.py` shows these to Hydra, `conf/hydra/launcher` chooses one.
"""
