//! Logs lines and replays them, with nothing but this crate and what lies under it.
//!
//! ```text
//! cargo run -p pebble-wal --example log_and_replay -- some/directory "first line" "second line"
//! cargo run -p pebble-wal --example log_and_replay -- some/directory
//! cargo run -p pebble-wal --example log_and_replay                      both, in a directory that goes again
//! ```
//!
//! Each run prints what earlier runs logged, appends its own lines, makes them durable and closes the log. Kill it at
//! any moment: the next run finds a prefix. The file `floor` plays the manifest's part: it notes where the log was
//! sealed, so damage before that is refused rather than taken for a crash.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{Error, Result};
use pebble_vfs::{Fs, LockKind, Open, OsFs};
use pebble_wal::{LogOptions, LogWriter, Recovery, recover};

const UUID: [u8; 16] = *b"example log\0\0\0\0\0";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().map(PathBuf::from) {
        Some(dir) => run(&dir, &arguments.collect::<Vec<_>>()),
        None => twice(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs two lines and, in a second life, replays them.
fn twice() -> Result<()> {
    let dir = tempfile::tempdir()?;
    run(dir.path(), &["a pebble".into(), "another pebble".into()])?;
    run(dir.path(), &[])
}

fn run(dir: &Path, lines: &[String]) -> Result<()> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    fs.create_dir(dir)?;
    let _lock = fs.lock(&dir.join("LOCK"), LockKind::Exclusive)?;

    let options = LogOptions::new(UUID);
    let floor = read_floor(&*fs, dir)?;
    let recovered = recover(&fs, dir, UUID, 1, floor, Recovery::Strict, options.io)?;
    for frame in recovered.frames() {
        println!("{} {}", frame.end, decode(frame.payload)?);
    }
    eprintln!("sealed: {}, dropped: {} bytes", recovered.sealed, recovered.dropped_bytes);

    let mut log = LogWriter::resume(Arc::clone(&fs), dir, options, recovered)?;
    for line in lines {
        append(&mut log, line)?;
    }
    // One sync for all of them.
    log.sync_handle().wait_durable(log.end())?;
    let floor = log.seal()?;
    write_floor(&*fs, dir, floor)
}

/// A record of this program: length, bytes, zeros up to a multiple of four.
fn append(log: &mut LogWriter, line: &str) -> Result<()> {
    let len = u32::try_from(line.len()).map_err(|_| Error::invalid("a line of more than 4 GiB"))?;
    log.append((4 + line.len()).next_multiple_of(4), 1, |payload| {
        let (head, body) = payload.split_at_mut(4);
        let (text, pad) = body.split_at_mut(line.len());
        head.copy_from_slice(&len.to_le_bytes());
        text.copy_from_slice(line.as_bytes());
        pad.fill(0);
    })?;
    Ok(())
}

fn decode(payload: &[u8]) -> Result<&str> {
    let text = payload.split_first_chunk().and_then(|(len, body)| {
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        std::str::from_utf8(body.get(..len)?).ok()
    });
    text.ok_or_else(|| Error::invalid("the log holds something else than lines"))
}

fn read_floor(fs: &dyn Fs, dir: &Path) -> Result<LogPosition> {
    let path = dir.join("floor");
    if fs.metadata(&path)?.is_none() {
        return Ok(LogPosition::ZERO);
    }
    let mut bytes = [0; 8];
    fs.open(&path, Open::Read)?.read_exact_at(&mut bytes, 0)?;
    Ok(LogPosition(u64::from_le_bytes(bytes)))
}

/// Atomically: a new file, synced, renamed over the old one, and then the directory.
fn write_floor(fs: &dyn Fs, dir: &Path, floor: LogPosition) -> Result<()> {
    let (path, temporary) = (dir.join("floor"), dir.join("floor.tmp"));
    if fs.metadata(&temporary)?.is_some() {
        fs.remove(&temporary)?;
    }
    let file = fs.open(&temporary, Open::CreateNew)?;
    file.write_at(&floor.0.to_le_bytes(), 0)?;
    file.sync_data()?;
    fs.rename(&temporary, &path)?;
    Ok(fs.sync_dir(dir)?)
}
