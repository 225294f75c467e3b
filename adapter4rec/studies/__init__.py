"""Studies: sets of runs that are executed, recorded and reported together."""
