"""Expectation-maximization, from statistics to the volume, and its record."""
