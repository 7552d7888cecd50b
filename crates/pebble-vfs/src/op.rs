//! The kinds of calls, as faults select them and the simulated disk announces them.
//!
//! Threading: plain values.

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Op {
    /// All of those below.
    Any,
    /// Open of an existing file.
    Open,
    /// Creation of a file.
    Create,
    /// Creation of a directory.
    CreateDir,
    /// Positioned read.
    Read,
    /// Positioned write.
    Write,
    /// Allocation of blocks.
    Allocate,
    /// Change of a length.
    Truncate,
    /// Sync of a file.
    Sync,
    /// Sync of a directory.
    SyncDir,
    /// Rename; its path is both the old and the new one.
    Rename,
    /// Removal.
    Remove,
    /// Map for reading.
    Map,
    /// Map for writing.
    MapMut,
    /// Lock.
    Lock,
    /// Listing of a directory.
    List,
    /// Look at a name.
    Metadata,
}

/// What a kind of call may do to the state of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing.
    None,
    /// It changes it, so each call is an event of the simulated disk.
    Always,
    /// Now and then: a lock creates the file that it is the first to take.
    Sometimes,
}

impl Op {
    /// Every kind but [`Op::Any`].
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Create,
        Self::CreateDir,
        Self::Read,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Remove,
        Self::Map,
        Self::MapMut,
        Self::Lock,
        Self::List,
        Self::Metadata,
    ];

    /// What this kind may do to the disk. No arm stands for several to come: whoever adds a kind decides it here, and
    /// the crash tests then ask for images at its calls.
    pub fn effect(self) -> Effect {
        match self {
            Self::Create
            | Self::CreateDir
            | Self::Write
            | Self::Allocate
            | Self::Truncate
            | Self::Sync
            | Self::SyncDir
            | Self::Rename
            | Self::Remove => Effect::Always,
            Self::Lock => Effect::Sometimes,
            Self::Any | Self::Open | Self::Read | Self::Map | Self::MapMut | Self::List | Self::Metadata => {
                Effect::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The array is what tests go through, so a kind that is missing in it would escape them.
    #[test]
    fn all_of_them_are_listed_once_in_their_order() {
        assert!(Op::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!(Op::ALL[0] as usize, Op::Any as usize + 1);
        assert_eq!(Op::ALL[Op::ALL.len() - 1] as usize, Op::ALL.len());
        assert_eq!(Op::Metadata as usize, Op::ALL.len(), "a kind was added behind the last");
    }
}
