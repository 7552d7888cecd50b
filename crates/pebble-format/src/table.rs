//! Headers of the table. See `docs/format/table.md`.
