//! The read algebra of PebbleTree: one cursor contract, merge, concatenation and visibility.
