"""The graph over the passages of an index: built without a model, added to row by row, searched by walks."""
