"""The eps-ball: losses climbed, starts, and the one sign-gradient loop."""
