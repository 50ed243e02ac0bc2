"""Generated documentation, from code and records: `python -m documentation`; `--check` only compares."""
