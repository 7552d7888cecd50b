//! Compaction of PebbleTree: a pure plan and the one data mover, which flush uses too.
