"""Why the core refuses a blob: gruard_error of the core's gruard.h."""

REFUSALS = {
    1: "not aligned",
    2: "not a blob of this version",
    3: "truncated",
    4: "damaged",
    5: "a count, offset or operator that no bundle has",
    6: "too little memory",
    7: "laid out for another kernel",
}
