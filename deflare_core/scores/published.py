"""Published scores: what papers of this family report, to compare ours with."""

from __future__ import annotations

PUBLISHED = ("chamfer", "gauss", "mse", "pmse_2", "pmse_4", "r_f1", "t_f1", "tp_f1")
"""The names of the published scores, in the order of the tables in print."""
_SIMULATED, _REAL = "E-Flare-2.7K, 35 simulated test recordings", "E-Flare-R, 28 real recordings"
PUBLISHED_SCORES = {
    (data, method): dict(zip(PUBLISHED, scores, strict=True))
    for (data, method), scores in {
        (_SIMULATED, "raw input"): (1.3555, 0.5222, 0.8315, 0.3666, 0.3430, 0.5138, 0.6303, 0.6939),
        (_SIMULATED, "EFR"): (1.3237, 0.5439, 0.5357, 0.2019, 0.1755, 0.1616, 0.3572, 0.4811),
        (_SIMULATED, "PFD-A"): (1.3958, 0.5397, 0.8357, 0.3637, 0.3392, 0.4383, 0.5496, 0.6125),
        (_SIMULATED, "PFD-B"): (1.2496, 0.4613, 0.2851, 0.1159, 0.1021, 0.4460, 0.5155, 0.5727),
        (_SIMULATED, "voxel transform"): (1.2923, 0.5576, 0.3495, 0.1037, 0.0829, 0.2177, 0.5444, 0.6318),
        (_SIMULATED, "E-DeflareNet"): (0.4477, 0.2646, 0.1269, 0.0487, 0.0435, 0.7071, 0.7627, 0.7794),
        (_REAL, "raw input"): (1.7855, 0.7170, 0.8158, 0.3431, 0.3266, 0.2299, 0.2915, 0.3093),
        (_REAL, "E-DeflareNet"): (1.1368, 0.4651, 0.1741, 0.0690, 0.0644, 0.3498, 0.3386, 0.3011),
    }.items()
}
"""Scores published in arXiv 2512.09016, by data set and method."""
