"""The same simulation on a GPU, by the functions that the loops on a processor call too.

It may import everything but `stream`, `pairs` and `tools`.
"""
