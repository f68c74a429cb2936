"""Measurements, printed as tables; run from the checkout, never part of the tests."""
