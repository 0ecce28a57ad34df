"""The system around a run: files that are complete or absent, signals, processes, devices, settings, places.

It knows nothing of events or networks, and imports nothing else of the package.
"""
