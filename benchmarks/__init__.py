"""Speed as ratios within one run: the machine may be slow, shared or noisy, a ratio stays."""
