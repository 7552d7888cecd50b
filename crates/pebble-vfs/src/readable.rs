//! Reading a file of which the device cannot give every part.
//!
//! Threading: a plain function.

use std::io;
use std::ops::Range;

use crate::error::os_code;
use crate::fs::File;

/// What is given up where a part cannot be read: a sector of any device that is sold.
const PART: usize = 4096;

/// Whether the cause is the device, which did not give what it was asked for. Another part of the file, or another
/// file, may be whole.
pub fn is_unreadable(error: &io::Error) -> bool {
    os_code(error) == Some(libc::EIO)
}

/// Fills `bytes` with those of a file from its beginning on, and where the device cannot give them with zeros. Gives
/// those ranges, ascending. Cost: one read, and one for each 4 KiB if that fails.
///
/// Errors: any but [those of the device](is_unreadable).
pub fn read_what_is_readable(file: &dyn File, bytes: &mut [u8]) -> io::Result<Vec<Range<usize>>> {
    match file.read_exact_at(bytes, 0) {
        Err(error) if is_unreadable(&error) => {}
        read => return read.map(|()| Vec::new()),
    }
    let mut holes = Vec::new();
    for (nth, part) in bytes.chunks_mut(PART).enumerate() {
        let at = nth * PART;
        match file.read_exact_at(part, at as u64) {
            Err(error) if is_unreadable(&error) => {
                part.fill(0);
                holes.push(at..at + part.len());
            }
            read => read?,
        }
    }
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fault::{Fault, FaultKind};
    use crate::{FaultFs, Fs, Op, Open, SimFs};

    #[test]
    fn what_the_device_cannot_give_is_zeros() {
        let fs = FaultFs::over_sim(SimFs::new(1));
        let file = fs.open(Path::new("/f"), Open::CreateNew).unwrap();
        let all = vec![7; 2 * PART + 100];
        file.write_at(&all, 0).unwrap();
        let mut bytes = vec![1; all.len()];
        assert!(read_what_is_readable(&*file, &mut bytes).unwrap().is_empty() && bytes == all);
        // The whole, and then the second part.
        fs.inject(Fault::once(Op::Read, 0, FaultKind::Io));
        fs.inject(Fault::once(Op::Read, 2, FaultKind::Io));
        let holes = read_what_is_readable(&*file, &mut bytes).unwrap();
        assert_eq!((holes.len(), holes.first()), (1, Some(&(PART..2 * PART))));
        let zeros = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
        assert!(zeros.eq(PART..2 * PART));
        fs.inject(Fault::once(Op::Read, 0, FaultKind::TooManyFiles));
        assert!(read_what_is_readable(&*file, &mut bytes).is_err());
    }
}
