//! Versions of the tree and the log of their edits.
