"""Cameras without a camera: a procedural street with exact labels, and everything else that can play one."""
