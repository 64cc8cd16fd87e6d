"""Stage 1: an archive's raw files -> one typed table, one row per image (`Index`)."""
