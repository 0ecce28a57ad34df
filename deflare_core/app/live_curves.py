"""Live curves: the training curves of a run in a notebook, drawn again while it trains."""

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
    """While this is open, the notebook's cell shows the run's learning curve, drawn again every few seconds.

    The log is followed, not the training: the run may be in this process or in others, and need not have begun.
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
