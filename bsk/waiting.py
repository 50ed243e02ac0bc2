"""How the threads of an operation wait for each other."""

import os
import sys

# OpenMP's own choice, and those of GCC's and Intel's (LLVM's) libraries
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
SPINS = "10000"


def sleep_soon() -> None:
    """Have threads that wait sleep soon, where torch is not loaded yet and the user has chosen nothing.

    GCC's OpenMP, which torch's wheels for Linux have, lets a thread look 300,000 times if the others are done before it
    sleeps, for milliseconds. Who shares the machine gets nothing of that time, and may be who is waited for. To sleep
    at once costs more: passes of small networks then take up to twice as long on an idle machine. 10,000 times do not.
    """
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
