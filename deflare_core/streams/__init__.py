"""What can be done with and told of a stream of events without a network: filters, baselines, statistics.

It may import `codec` and what stands below it.
"""
