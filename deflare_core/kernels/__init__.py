"""Inner loops: the codec on a processor (numba) and on a GPU (torch, triton), EVT3, CUDA graphs, the folded U-Net.

It may import `events` and `system`; triton is imported nowhere else.
"""
