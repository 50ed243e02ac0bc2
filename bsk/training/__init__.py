"""The training loop, and what surrounds it: settings, state, files, validation and monitoring."""
