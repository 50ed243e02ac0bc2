"""Stress tests of bsk: kills, hostile inputs, full disks, concurrent writers, unusual situations."""
