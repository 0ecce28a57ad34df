"""Programs around the simulator: pictures of pairs, drawn flares, the comparison with real recordings.

It may import everything.
"""
