"""Rotations, the functions of the ball, and the grids that both are sampled on."""
