"""Studies: many runs that answer one question, carried out, recorded and reported together."""
