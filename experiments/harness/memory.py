"""How this process gets its memory from the system."""

import ctypes
import sys

# mallopt(3): one pool for all threads, nothing mapped apart, nothing given back below 2 GB, grown by 64 MB.
_OPTIONS = {-8: 1, -4: 0, -1: 2**31 - 1, -2: 2**26}


def keep_freed() -> bool:
    """Keep what is freed for the next allocation; whether the system's allocator (glibc's) can be told so.

    On CPUs XLA allocates a program's intermediate arrays at every call and frees them after it. By default they go back
    to the system, which clears each page anew: 47,000 page faults a step of `cifar10-conv`, an eighth of its seconds.
    To be called before threads start: each keeps the pool that it has.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return all(mallopt(option, value) == 1 for option, value in _OPTIONS.items())
