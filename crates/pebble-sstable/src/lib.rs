//! The SSTable of PebbleTree: writer and reader, usable on a file, a map or a byte slice.
