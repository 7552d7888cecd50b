//! Looks at the directory and at the memory five times a second, beside the work.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::disk::{Directory, Space};
use crate::process;

const INTERVAL: Duration = Duration::from_millis(200);

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the work began.
    pub at: Duration,
    /// What lay on the disk.
    pub space: Space,
    /// Anonymous memory of the process, in bytes.
    pub anonymous: u64,
}

/// Does `work` on this thread and takes samples on another until it is done; the last one comes after its end.
pub fn beside<T>(
    directory: &mut Directory<'_>,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Sample>)> {
    let begin = Instant::now();
    let (done, wait) = channel::<()>();
    thread::scope(|scope| {
        let sampler = scope.spawn(move || -> Result<Vec<Sample>> {
            let mut samples = Vec::new();
            loop {
                let ended = wait.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected);
                let at = begin.elapsed();
                samples.push(Sample { at, space: directory.look()?, anonymous: process::anonymous_bytes()? });
                if ended {
                    return Ok(samples);
                }
            }
        });
        let outcome = work();
        drop(done);
        let samples = sampler.join().map_err(|_| "the sampler panicked")?;
        Ok((outcome?, samples?))
    })
}

/// The largest of a figure over all samples.
pub fn max(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> u64 {
    samples.iter().map(figure).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Compression, Config, EngineName};

    #[test]
    fn the_last_sample_sees_what_the_work_left() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(8 << 20, Compression::None);
        let store = EngineName::Pebble.open(dir.path(), &config).unwrap();
        let mut directory = Directory::new(dir.path(), store.as_ref());
        let work = || {
            store.put(b"key", &[7; 100_000])?;
            store.flush()
        };
        let ((), samples) = beside(&mut directory, work).unwrap();
        let last = samples[samples.len() - 1];
        assert!(last.space.tables >= 100_000 && last.anonymous > 0);
        assert_eq!(max(&samples, |sample| sample.space.tables), last.space.tables);
        assert!(beside(&mut directory, || -> Result<()> { Err("work failed".into()) }).is_err());
    }
}
