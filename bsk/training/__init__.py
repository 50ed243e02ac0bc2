"""The table of methods and the one training loop."""
