"""Compiled E-step of the window model."""
