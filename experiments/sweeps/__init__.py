"""Sweeps: the cells of an experiment over values of its configurations' fields, by any number of workers.

fields    dotted names of a configuration's fields, their values from text, configurations with other values
space     what --grid asks for: values and ranges, the points of a grid
queue     Optuna's study as a queue: which points and seeds are open, running, done; what died is put back
pruning   what a trial has come to so far, and whether it is given up
worker    one worker: takes a trial, runs its cells, tells what came of it
results   one row per cell: CSV, and Parquet where pyarrow is installed
options   of python -m experiments sweep
command   what it does
"""
