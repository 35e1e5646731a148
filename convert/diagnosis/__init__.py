"""What tells the kinds of faults apart.

Clean rows come in, the manifest's section `diagnosis` goes out.
"""
