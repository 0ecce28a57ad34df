"""Trials: a function called first in a copy of this process, where a hang or a crash in foreign code costs a line.

Code of others that reads files may search for ever or end the process where a file is damaged, and nothing can catch
that. A copy of the process (a fork) takes 2 ms to start; it is stopped when it has computed for longer than any sound
file takes, and ends even if this process is killed meanwhile.
"""

from __future__ import annotations

import faulthandler
import math
import os
import resource
import signal
import warnings
from collections.abc import Callable

from deflare_core.system.signals import hold_signals

MOST_SECONDS = 2
"""Seconds of a processor that a trial may take, unless it asks for more; 10,000 groups of HDF5 take one."""
MOST_WAITED_SECONDS = 60
"""Seconds that a trial may wait, as for a disk that does not answer."""
OF_TIME = {signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM}


def find_failure(function: Callable[[], object]) -> str:
    """How a copy of this process failed that called a function, in words that follow "it"; '' if it came to an end.

    Whether the function raised an error makes no difference: it will do so again.
    """
    child = 0
    try:
        # Python drops the exception of a signal that comes while it copies the process, and prints a traceback.
        with warnings.catch_warnings(), hold_signals():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of other threads: the copy has but one.
            if not (child := os.fork()):
                _call(function)
        _, status = os.waitpid(child, 0)
    except ChildProcessError:
        return ""  # Where the ends of processes are ignored (SIGCHLD), nobody learns how this one ended.
    except BaseException:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    if not os.WIFSIGNALED(status):
        return ""
    number = os.WTERMSIG(status)
    return "comes to no end" if number in OF_TIME else f"crashes ({signal.Signals(number).name})"


def allow_seconds(more: float) -> None:
    """Let the trial that calls this take longer, in seconds of a processor."""
    signal.setitimer(signal.ITIMER_REAL, MOST_WAITED_SECONDS + more)
    _limit_seconds(math.ceil(MOST_SECONDS + more))


def _limit_seconds(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _call(function: Callable[[], object]) -> None:
    """Call a function, silently, and end the process."""
    try:
        faulthandler.disable()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, MOST_WAITED_SECONDS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _limit_seconds(MOST_SECONDS)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        function()
    finally:
        os._exit(0)
