"""Studies behind the tables of the documentation; in a checkout only."""
