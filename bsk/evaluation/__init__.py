"""Accuracy under attacks: running them, caching their results, and checking whether they can be trusted."""
