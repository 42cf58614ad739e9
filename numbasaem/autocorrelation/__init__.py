"""Autocorrelations of micrographs, and the volume that explains them."""
