//! Waits until an engine's background work is done.
//!
//! No engine tells this fully: one counts a merge only when it is over, another does not count what is queued. So
//! it is judged from outside as well: for a whole second the engine must know of no work, next to no processor time
//! may be used, nothing written, and no thread may wait for storage.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{self, Usage};
use crate::store::Store;

const WINDOW: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
/// Of processor time in a window: this wait and the sampler need some.
const CPU_SECONDS_MAX: f64 = 0.05;
const PATIENCE: Duration = Duration::from_secs(3600);

/// Returns when the engine is quiet, with the time until it was. Errors: it is not quiet within an hour.
pub fn wait(store: &dyn Store) -> Result<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let at = begin.elapsed();
        if is_quiet(store)? {
            return Ok(at);
        }
    }
    Err(format!("background work goes on after {PATIENCE:?}").into())
}

fn is_quiet(store: &dyn Store) -> Result<bool> {
    let begin = Instant::now();
    let before = Usage::now()?;
    while begin.elapsed() < WINDOW {
        let used = Usage::now()?.since(&before);
        let writes = used.write_call_bytes > 0 || used.write_bytes > 0;
        if store.is_busy() || writes || used.cpu_seconds > CPU_SECONDS_MAX || process::waits_for_storage()? {
            thread::sleep(STEP);
            return Ok(false);
        }
        thread::sleep(STEP);
    }
    Ok(true)
}
