"""Remove lens flare from event-camera recordings: codec, data set, network, training and evaluation."""

__version__ = "0.1.0"
