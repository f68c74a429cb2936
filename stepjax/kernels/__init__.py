"""Layer 1: one element in, one element out; pure functions of arrays."""
