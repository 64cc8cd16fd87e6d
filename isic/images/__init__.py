"""Bytes to uint8 pixels, without torch: sources (HDF5, files) -> one pack -> decoded images.

`decode` turns encoded bytes into RGB, `hdf5` reads an archive's byte strings, `pack` gathers all
of them once into the one memory-mapped file that DataLoader workers read.
"""
