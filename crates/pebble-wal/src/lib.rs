//! The write-ahead log of PebbleTree: mapped segments, group commit and replay.
