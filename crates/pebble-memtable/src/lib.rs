//! The memtable of PebbleTree: an ordered index over records that live in a log segment.
