"""Attacks on a callable model: functions from tensors to tensors."""
