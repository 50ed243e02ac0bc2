"""What of the documentation is made from code and records: `python -m documentation`; `--check` compares."""
