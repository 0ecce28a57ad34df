"""The parts of the training loop: which windows make a step, their augmentation, the optimizer, the log.

It may import what `model` may, and `model`; `training` puts the parts together.
"""
