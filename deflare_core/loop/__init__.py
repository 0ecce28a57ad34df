"""The parts of the training loop: which windows make a step, their augmentation, the optimizer, the run and its log.

Read `run` first. It may import what `checkpoint` may, `checkpoint`, and of the simulator `data_simu.stream`; `training`
puts the parts together.
"""
