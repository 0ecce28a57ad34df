"""Recordings on disk: readers and writers of every format, pairs of recordings, and the checks of a data set.

It may import `events`, `windows`, `system` and `kernels`.
"""
