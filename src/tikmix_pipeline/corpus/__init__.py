"""What the model reads: text sources become tokenised domain shards, and shards become a `MixtureStream`.

The way of the text: `sources` (by `packages`, `readers`, `local_files`, `formats`) -> `reading` (whole, or by
`sampling`) -> `documents`, `overlap` -> `records` -> `tokenizer`, `writing` -> `shards` -> `batches`, `stream`; `build`
is all of it up to the shards, in three calls. Target tasks go beside it, in `tasks`. Relative paths start from `root`
everywhere, and packages are kept in `downloads`. No model, no tensor library, no Kedro and no MLflow: of the package
only `parameters`, `files`, `progress` and `errors` may be imported.
"""
