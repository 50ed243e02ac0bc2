"""From official layouts to one safetensors file, and from there to batches."""
