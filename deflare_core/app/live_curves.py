"""Live curves: the training curves of a run in a notebook, drawn anew while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from IPython.display import display

from deflare_core.loop.run_log import read_log
from deflare_core.show.curves import draw_learning_curve


@contextmanager
def live_curves(run_dir: str | Path, every_s: float = 2.0) -> Iterator[None]:
    """While this is open, the notebook's cell shows the run's learning curve, drawn anew every few seconds.

    The log is followed, not the training, so the run may be in this process or in others.

    Parameters
    ----------
    run_dir : folder of the run; it need not exist yet.
    every_s : seconds from one picture to the next.
    """
    ended = Event()
    shown = display(draw_learning_curve(read_log(run_dir), Path(run_dir).name), display_id=True)

    def update() -> None:
        shown.update(draw_learning_curve(read_log(run_dir), Path(run_dir).name))

    def follow() -> None:
        while not ended.wait(every_s):
            update()

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        update()
