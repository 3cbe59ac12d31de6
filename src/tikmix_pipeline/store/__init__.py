"""What is kept on disk says what it was made from: provenance records, the digest of code, one keyed store.

This room knows nothing of Kedro, of models or of text; it may import `errors` and `files`.
"""
