"""A notebook's kernel ends with the run that started it."""

import asyncio
import signal

import pytest

from deflare_core.app.kernel import own_kernels


def test_a_kernel_that_papermill_has_not_heard_of_ends_where_a_run_is_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt), own_kernels() as make_kernel:
        kernel = make_kernel(kernel_name="python3", connection_file=str(tmp_path / "kernel.json"))
        asyncio.run(kernel.start_kernel())
        poll = kernel.provisioner.process.poll
        assert poll() is None, "It starts."
        raise KeyboardInterrupt
    assert poll() == -signal.SIGKILL
