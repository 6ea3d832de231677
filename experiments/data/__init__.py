"""Data sets: read by name (`sources`), decoded in processes (`decoding`), prepared once (`prepare`)."""
