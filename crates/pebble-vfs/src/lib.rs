//! The operating system boundary of PebbleTree: files, maps, locks and time, real and simulated.
