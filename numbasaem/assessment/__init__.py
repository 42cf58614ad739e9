"""How maps compare: alignment and Fourier shell correlation."""
