"""Compiled functions only: arrays in, arrays out, the caller allocates."""
