"""The molecule: its basis, rotations, point groups and phantoms."""
