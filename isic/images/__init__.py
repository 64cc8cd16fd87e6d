"""Bytes to uint8 pixels, without torch: sources (HDF5, files) -> one pack -> decoded images.

`sources` reads references: files, and by `hdf5`, `tfrecord` and `dicom` what lies inside one.
`decode` turns encoded bytes into RGB, `convert` does what a pack's options ask for (`appearance`:
borders, colours), `pack` gathers all images once into the one memory-mapped file that DataLoader
workers read, and `partial` lets a stopped packer's work be taken over.
"""
