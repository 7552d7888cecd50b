//! Bytes and their names: records, keys, headers, checksums and file names of PebbleTree.
