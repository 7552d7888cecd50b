//! The two loops that every system call on a file needs: again after a signal, on after a short write.
//!
//! Pure functions over a closure, so that tests can script what the operating system answers.

use std::io;

/// Calls again for as long as a signal interrupts the call.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Writes all of `bytes` at `offset` by a `write` that may take only a part, or be interrupted.
pub(crate) fn write_all(
    mut bytes: &[u8],
    mut offset: u64,
    mut write: impl FnMut(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = uninterrupted(|| write(bytes, offset))?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(taken..).ok_or(io::ErrorKind::InvalidData)?;
        offset = offset.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_interrupted_writes_are_continued() {
        let mut answers: Vec<io::Result<usize>> = vec![
            Err(io::ErrorKind::Interrupted.into()),
            Ok(3),
            Err(io::ErrorKind::Interrupted.into()),
            Ok(1),
        ];
        answers.reverse();
        let mut file = vec![0u8; 14];
        write_all(b"abcdefgh", 6, |bytes, offset| {
            let taken = answers.pop().unwrap_or(Ok(bytes.len()))?;
            let at = usize::try_from(offset).unwrap();
            file[at..at + taken].copy_from_slice(&bytes[..taken]);
            Ok(taken)
        })
        .unwrap();
        assert_eq!(&file, b"\0\0\0\0\0\0abcdefgh");
    }

    #[test]
    fn a_write_that_takes_nothing_ends_in_an_error() {
        let error = write_all(b"x", 0, |_, _| Ok(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn an_error_after_a_part_is_reported() {
        let mut calls = 0;
        let error = write_all(b"xy", 0, |_, _| {
            calls += 1;
            if calls == 1 { Ok(1) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) }
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
