"""Atomic files, JSONL records and checkpoints."""
