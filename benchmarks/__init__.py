"""Ratios against the reference libraries, measured in one run; each module prints its table."""
