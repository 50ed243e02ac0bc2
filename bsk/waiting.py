"""How idle threads of a parallel operation wait for each other."""

import os
import sys

# environment variables of OpenMP itself, and of GCC's and Intel's (LLVM's) libraries
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
SPINS, LONGER = "10000", "20000"
_ours = False  # whether the policy is that of `sleep_soon`


def sleep_soon() -> None:
    """Make waiting threads sleep soon, unless torch is already loaded or the user has set a policy.

    GCC's OpenMP, which torch's Linux wheels use, lets a waiting thread spin 300,000 times, which takes milliseconds,
    before it sleeps. On a shared machine this takes time from other processes, and possibly from the very thread that
    is waited for. Sleeping at once is worse: passes of small networks then take up to twice as long on an idle machine.
    10,000 spins cost trainings nothing there.
    """
    global _ours
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in CHOICES):
        os.environ["GOMP_SPINCOUNT"], _ours = SPINS, True


def sleep_later() -> None:
    """Let threads wait twice as long: for commands that use fewer threads when they have to wait for a core.

    Their small operations between passes are longer than 10,000 spins, so that `autoattack` on a small network took
    7 % more time on an idle machine; with 20,000 it takes 5 % more. With 50,000 `pgd-100` took up to 1.4 times the
    least time beside another process, because it first has to notice that it waits.
    """
    if _ours and "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = LONGER
