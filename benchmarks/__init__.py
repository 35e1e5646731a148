"""Side-by-side figures: everything compared is measured in one run, as medians and ratios.

Nothing here is a test. Figures depend on the machine; the commands say on which they ran.
"""
