"""Entry point of `python -m bsk` and `torchrun -m bsk`."""

from bsk.cli.app import main

main()
