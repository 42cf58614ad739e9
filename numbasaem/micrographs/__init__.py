"""From files to prepared micrographs, and what is known of their optics."""
