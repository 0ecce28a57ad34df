"""From linear intensity to events: the physics of a pixel, when it is looked at, and the target of a pair.

It may import `scene`, `scalars` and `config`.
"""
