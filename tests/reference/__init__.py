"""Slow NumPy twins of the kernels: loops, float64, one line per formula."""
