"""Attacks on a callable model: tensors in, tensors out."""
