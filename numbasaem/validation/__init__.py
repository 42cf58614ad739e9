"""Whether the data support a structure."""
