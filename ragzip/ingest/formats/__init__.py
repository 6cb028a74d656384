"""One file a family of formats, each from bytes to text with structure."""
