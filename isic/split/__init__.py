"""Stage 2: the index -> a `fold` for each labelled row, written as a CSV that everyone reads."""
