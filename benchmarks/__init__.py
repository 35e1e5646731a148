"""Benchmarks: everything that is compared is measured in one run, as medians and ratios.

These are no tests. Figures depend on the machine; the commands print which machine they ran on.
"""
