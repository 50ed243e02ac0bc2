"""Datasets: from their sources to one safetensors file, and from there to batches."""
