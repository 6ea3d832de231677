"""The command line: what experiments there are, their options, one line for each mistake."""
