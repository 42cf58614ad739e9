"""Compiled E-step of the patch model."""
