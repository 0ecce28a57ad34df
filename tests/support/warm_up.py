"""Small jobs of every kind, for the machine code that tests share; run once, before the tests' workers start."""

import tempfile
from pathlib import Path

from deflare_core.deflaring.method import BaselineMethod
from deflare_core.inference import deflare_recording
from deflare_core.io.recordings import save_events
from deflare_core.kernels.numba_cache import compiled_before
from deflare_core.streams.baselines import BASELINES
from support.killed_run import deflare
from support.recordings import make_events


def main() -> None:
    """Let the simulator, the codec and the baselines be compiled, unless they are."""
    compiled_before("data_simu.tools.warm_up")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_events(folder / "in.h5", make_events(num=900, duration_us=60_000), source="test")
        deflare(folder, "network.h5")
        for baseline in BASELINES:
            deflare_recording(BaselineMethod(baseline), folder / "in.h5", folder / f"{baseline}.h5", progress=False)


if __name__ == "__main__":
    main()
