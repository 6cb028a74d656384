"""Token vectors of passages in an index: encodings that find candidates, and codes that rank them."""
