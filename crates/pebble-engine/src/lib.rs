//! The orchestration of PebbleTree: commit, read state, flush, install, recover, collect.
