"""The doctor: what of this machine, its packages and its folders would stop a run, a line each with what to do.

``findings.py`` is what every check gives back; the other modules hold the checks, as functions of plain values, and
``run.py`` asks them all in order. No torch is imported here: what torch knows comes from a child process.
"""
