"""Stage 0: an archive on disk, generated in the official layout."""
