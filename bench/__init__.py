"""Measurements, run by ``make bench``. They print ratios measured in turn in one run, and are no tests."""
