//! What the kernel says of this process, from `/proc/self`.

use std::fs;
use std::str::FromStr;

use crate::Result;

/// Ticks of the processor-time figures in a second; the same on every Linux.
const TICKS: f64 = 100.0;

/// What the process took so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time of all threads, in user and system mode, to 10 ms.
    pub cpu_seconds: f64,
    /// Bytes of pages that it made dirty in files, through maps too (`write_bytes`): what storage has to take, but
    /// for pages dirtied again before they got there.
    pub write_bytes: u64,
    /// Of these, bytes that were deleted before they got to storage (`cancelled_write_bytes`).
    pub cancelled_bytes: u64,
    /// Bytes given to write calls (`wchar`); what is written through a map is not in it.
    pub write_call_bytes: u64,
}

impl Usage {
    /// Of the process until now.
    pub fn now() -> Result<Self> {
        let io = fs::read_to_string("/proc/self/io")?;
        let stat = fs::read_to_string("/proc/self/stat")?;
        let ticks: u64 = field::<u64>(&stat, 11)? + field::<u64>(&stat, 12)?;
        Ok(Self {
            cpu_seconds: ticks as f64 / TICKS,
            write_bytes: labelled(&io, "write_bytes:")?,
            cancelled_bytes: labelled(&io, "cancelled_write_bytes:")?,
            write_call_bytes: labelled(&io, "wchar:")?,
        })
    }

    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            write_bytes: self.write_bytes - before.write_bytes,
            cancelled_bytes: self.cancelled_bytes - before.cancelled_bytes,
            write_call_bytes: self.write_call_bytes - before.write_call_bytes,
        }
    }
}

/// Bytes of anonymous memory that are resident: heap and stacks, no mapped files (`RssAnon`).
pub fn anonymous_bytes() -> Result<u64> {
    Ok(labelled::<u64>(&fs::read_to_string("/proc/self/status")?, "RssAnon:")? << 10)
}

/// Whether a thread of the process waits for storage.
pub fn waits_for_storage() -> Result<bool> {
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that ended in between waits for nothing.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        if field::<char>(&stat, 0)? == 'D' {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The field `index` of a line of `stat`, counted from the state: the name before it may hold blanks.
fn field<T: FromStr>(stat: &str, index: usize) -> Result<T> {
    let (_, fields) = stat.rsplit_once(')').ok_or("stat without a name")?;
    let word = fields.split_whitespace().nth(index).ok_or("stat is short")?;
    word.parse().map_err(|_| format!("stat: {word}").into())
}

/// The number behind `label` at the beginning of a line.
fn labelled<T: FromStr>(text: &str, label: &str) -> Result<T> {
    let found = text.lines().find_map(|line| line.strip_prefix(label));
    let word = found.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).ok_or_else(|| format!("no number behind {label}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let stat = "1 (a ) b) D 1 2 3 4 5 6 7 8 9 10 70 5 0";
        assert_eq!(field::<char>(stat, 0).unwrap(), 'D');
        assert_eq!((field::<u64>(stat, 11).unwrap(), field::<u64>(stat, 12).unwrap()), (70, 5));
        let io = "wchar: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n";
        assert_eq!(labelled::<u64>(io, "write_bytes:").unwrap(), 4096);
        assert!(labelled::<u64>(io, "rchar:").is_err());
    }

    #[test]
    fn writes_and_memory_are_seen() {
        let (before, anonymous) = (Usage::now().unwrap(), anonymous_bytes().unwrap());
        // Other tests run beside this one and let go of some memory.
        let memory = vec![1_u8; 64 << 20];
        std::fs::write(tempfile::NamedTempFile::new().unwrap().path(), &memory).unwrap();
        assert!(Usage::now().unwrap().since(&before).write_call_bytes >= 64 << 20);
        assert!(anonymous_bytes().unwrap() >= anonymous + (32 << 20));
    }
}
