"""Questions asked of the library, one folder each; `python -m experiments --help` lists the commands."""
