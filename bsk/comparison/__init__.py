"""Comparison tables from records: statistics, significance tests, and the published numbers."""
