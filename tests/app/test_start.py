"""What commands load: each only what it uses, for a person who waits for one."""

import subprocess
import sys

import pytest
from support.recordings import make_events

from deflare_core.io.recordings import save_events

RUN = """
import sys
from deflare_core.app.commands import main
status = main(sys.argv[2:])
loaded = [name for name in sys.argv[1].split() if name in sys.modules]
sys.exit(f"loaded {loaded}" if loaded else status)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["info", "a.h5"], "torch numba matplotlib scipy"),
        (["convert", "a.h5", "b.h5"], "torch numba matplotlib scipy"),
        (["sheet", "a.h5", "-o", "a.png"], "torch numba scipy"),
        (["infer", "-q", "-i", "a.h5", "-o", "b.h5"], "matplotlib skimage.color scipy.linalg torch._dynamo"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_loads_only_what_it_uses(tmp_path, words, unused):
    save_events(tmp_path / "a.h5", make_events(sensor_size=(16, 16)), source="test")
    command = [sys.executable, "-c", RUN, unused, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
