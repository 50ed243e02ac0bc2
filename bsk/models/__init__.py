"""The architectures by name, and weights from files."""
