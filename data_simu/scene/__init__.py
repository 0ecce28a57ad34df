"""What there is to see: a corridor with textures, boards and light sources, and its picture at any moment.

It may import `config` and `scalars`.
"""
