"""Write how the GPU's simulation of some seeds compares with the CPU's, as JSON; `test_simulator_gpu` runs it.

Run by itself on a machine with a GPU, `python tests/gpu_agreement.py cuda`, it compares full-size pairs. In numba's
simulator, which has no compiled functions, the CPU's events are read from the files that are named.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from data_simu import SimulationConfig, simulate
from data_simu.config import SceneConfig, SensorConfig, SourceConfig
from data_simu.gpu.simulation import prepare, simulate_on

SMALL = SimulationConfig(sensor_size=(16, 24), duration_us=12_000, warmup_us=3_000)
SEEDS = (1, 4, 9, 11, 15, 16)
BROAD = SMALL.model_copy(
    update={
        "sources": SourceConfig(broad_share=0.9, broad_mrad=(30, 150), sparkle_share=0.1),
        "scene": SceneConfig(roll_deg=(-30, 30)),
    }
)
BROWNIAN = SMALL.model_copy(update={"sensor": SensorConfig(brownian_share=1.0, noise_hz=(0.3, 0.3))})
RECORDED = SMALL.model_copy(update={"backgrounds": "background.h5"})
CASES = [(SMALL, 1), (BROAD, 1), *((SMALL, seed) for seed in SEEDS[1:]), (BROAD, 2), (BROWNIAN, 4), (RECORDED, 4)]
FIRST = 2
"""Cases of the quick test; the others take a minute and a half in numba's simulator."""


def cells(events):
    """How many events of each polarity each pixel has in each 2.5 ms."""
    return Counter(
        zip((events.t // 2_500).tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True)
    )


def compared(cpu, gpu) -> dict[str, float]:
    """Counts of both recordings, and the share of the events that both have in the same cell."""
    a, b = cells(cpu), cells(gpu)
    return {"cpu": len(cpu), "gpu": len(gpu), "same": (a & b).total() / max(1, (a | b).total())}


def on_gpu(config: SimulationConfig, seed: int, device: str):
    """The pair and labels of a seed from the GPU, in host memory."""
    pair = simulate_on(prepare(config, seed), device)
    return pair.flare.to_events(), pair.clean.to_events(), pair.flare_label.cpu().numpy()


def place(config: SimulationConfig, folder: Path | None) -> SimulationConfig:
    """The configuration with its recorded background, if it has one, in that folder."""
    return config.model_copy(update={"backgrounds": f"{folder}/{config.backgrounds}"}) if config.backgrounds else config


def main(device: str, folder: Path | None, numbers: list[int]) -> None:
    found = []
    cases = {number: CASES[number] for number in numbers}
    if device == "cuda":
        large = {"sensor_size": (480, 640), "duration_us": 100_000, "warmup_us": 20_000}
        full = [
            (config.model_copy(update=large), seed) for config in (SMALL, BROAD, BROWNIAN) for seed in (108, 112, 113)
        ]
        cases = dict(enumerate(full))
    for number, (config, seed) in cases.items():
        config = place(config, folder)
        flare, clean, label = on_gpu(config, seed, device)
        again = on_gpu(config, seed, device)[0] if device == "cuda" else flare
        if folder is None:
            pair = simulate(config, seed)
            expected = {"flare": pair.flare, "clean": pair.clean}
            labels = np.bincount(pair.flare_label, minlength=4)
        else:
            stored = np.load(folder / f"{number}.npz")
            expected = {name: flare.from_array(stored[name], config.sensor_size) for name in ("flare", "clean")}
            labels = stored["labels"]
        found.append(
            {
                "flare": compared(expected["flare"], flare),
                "clean": compared(expected["clean"], clean),
                "labels": [labels.tolist(), np.bincount(label, minlength=4).tolist()],
                "repeats": bool(np.array_equal(flare.t, again.t) and np.array_equal(flare.x, again.x)),
            }
        )
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None, list(map(int, sys.argv[3:])))
