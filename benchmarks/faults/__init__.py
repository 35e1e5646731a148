"""The fault campaign: real faults against the real processes, and what each must lead to.

    python -m benchmarks.faults BUNDLE      (make faults)

`lab` runs a supervised detector and feeds it; `apparatus` is what is broken beside it; the other
files hold the faults by where they strike. Every fault says what has to happen within which bound;
the table of what happened is docs/reliability.md.
"""
