"""The report that people read who decide on a mixture: one self-contained page of HTML."""
