//! PebbleTree: a fast, crash-safe, embedded key-value store.
