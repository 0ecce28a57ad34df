"""The kernel of a notebook's run: it ends with the run, wherever that is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from deflare_core.system.signals import hold_signals


@contextmanager
def own_kernels() -> Iterator[type[AsyncKernelManager]]:
    """A class for papermill to start kernels with; those that are left when the block ends are killed.

    papermill leaves one that it has not heard of yet, which would go on for seconds and write its file of a connection
    again.
    """
    started: list[AsyncKernelManager] = []

    class OwnKernel(AsyncKernelManager):
        # Its own is a coroutine too, and its types do not say so.
        async def start_kernel(self, *words: Any, **settings: Any) -> None:  # type: ignore[override]
            started.append(self)
            with hold_signals():  # One in the middle would lose the process.
                await super().start_kernel(*words, **settings)

    try:
        yield OwnKernel
    finally:
        for kernel in started:
            if process := getattr(kernel.provisioner, "process", None):
                process.kill()
                process.wait()
