"""What a comparison of several ways of mixing says: paired differences, a table, how stable influence is."""
