"""Index and out-of-fold predictions -> one table of features, a row a sample. No torch."""
