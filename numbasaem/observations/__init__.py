"""Observation models: from micrographs and projections to statistics."""
