"""What can be done with a stream of events, and found in it, without a network: filters, baselines, statistics.

It may import `codec` and what stands below it.
"""
