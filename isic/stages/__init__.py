"""The table side, composed: the verbs of `python -m isic`. No torch is imported here or below."""
