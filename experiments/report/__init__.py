"""Finished results as one HTML page that needs no network.

collect      folders, and what is stored in them;  shapes  what that must hold
differences  before and after, with an interval and a verdict in words
effects      what the fields of a sweep do: alone, in pairs
anova        what explains the differences in a complete grid, exactly
importance   the same of a search, fitted
against      two runs side by side
charts       what all figures share: Vega-Lite specifications, colours, switches
curves, phases, energies of a run;  sweep_charts, parallel of a sweep
wording      numbers and intervals as the page writes them
parts        a run, a sweep, two sides: verdicts, tables, charts
page         the templates filled in
options      of python -m experiments report
command      what it does
"""
