//! Headers of the manifest. See `docs/format/manifest.md`.
