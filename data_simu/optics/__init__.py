"""What a lens adds to the picture of a light source: veil, streaks, ghosts.

It may import `scene`, `scalars` and `config`.
"""
