"""Perturbations: the eps-ball, the losses that are maximised, the starting points, and the sign-gradient loop."""
