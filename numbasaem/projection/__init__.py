"""From the coefficients of a volume to its projections."""
