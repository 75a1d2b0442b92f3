"""What launch files need: the launch arguments, and the DDS profile."""
