"""The problems that solvers are compared on: files read as Qubos, one module a kind of format.

`best_known.csv` (instance, kind, variables, best_known, sense) in the folder, or beside a file, gives the best values
in the files' own objectives.
"""
