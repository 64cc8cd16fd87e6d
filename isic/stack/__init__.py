"""A feature table -> stacked out-of-fold and test predictions. No torch."""
