"""Where the particles of a known map are."""
