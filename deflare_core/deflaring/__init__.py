"""A stream of windows through a method, on a processor or a GPU, and what lets a long run be resumed.

It may import `model`, `streams`, `io` and what stands below them; `inference` stands above it.
"""
