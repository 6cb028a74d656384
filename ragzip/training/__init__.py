"""Training the parts that learn: one file per method, run by ``ragzip train``."""
