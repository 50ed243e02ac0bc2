"""Entry point of `python -m bsk`, and so of `torchrun -m bsk`."""

from bsk.cli.app import main

main()
