//! The log against one `write(2)` per record, and against the copy and checksum that it cannot be without.
//!
//! ```text
//!   floor       crc32c, copy ─► warm memory         what any log must do
//!               crc32c, copy ─► recycled mapping    the same, where the log does it
//!   the log     LogWriter::append                   mapped or written, in recycled or fresh segments
//!   the other   write(2), file opened to append     no checksum: its bytes come ready
//! ```
//!
//! - Every contestant puts the same 152 bytes a record: a header of 24 and a payload of 128. Nobody syncs.
//! - The floor checksums what it copies from. *Read back* is the order of the log: the checksum is of the copy. Where
//!   the C library copies with 64-byte stores that takes more than twice as long, since no load of eight bytes can take
//!   its value from such a store before the store is done. The log's own payload, of a length that is known when the
//!   bench is compiled, is copied in smaller pieces.
//! - *Of a record*: the payload is a record of 132 bytes that is encoded in place, with lengths as only a run knows
//!   them, as the engine does it.
//! - *Recycled* is the steady state: every page of the segment was written in an earlier round. The rotation that
//!   takes the segment from the pool is timed, giving the last one back is not. *Fresh* begins a log in a new
//!   directory: making the file is timed, removing it is not.
//! - Time on the processor stands beside elapsed time: on a busy machine the first is the steadier one.
//!
//! `cargo bench -p pebble-bench --bench log [-- rounds]`: 9 rounds of 400,000 records unless told otherwise. `-- only
//! recycled|fresh <times>` does one thing again and again, to be run under a profiler.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pebble_bench::rounds::Figure;
use pebble_format::checksum::crc32c;
use pebble_format::key::{KeyspaceId, Trailer};
use pebble_format::log::{FRAME_HEADER_LEN, SEGMENT_HEADER_LEN};
use pebble_format::record::{RECORD_HEADER_LEN, encode, encoded_len};
use pebble_vfs::OsFs;
use pebble_wal::{LogIo, LogOptions, LogPosition, LogWriter};
use tempfile::TempDir;

/// All of a round lies in one segment.
const RECORDS: usize = 400_000;
const SEGMENT: u32 = 64 << 20;
const PAYLOAD: usize = 128;
const FRAME: usize = FRAME_HEADER_LEN + PAYLOAD;
const KEY: usize = 16;
const VALUE: usize = 100;
const RECORD: usize = RECORD_HEADER_LEN + KEY + VALUE;

const _: () = assert!(
    RECORDS * (FRAME_HEADER_LEN + RECORD) + SEGMENT_HEADER_LEN + FRAME_HEADER_LEN * 2 < SEGMENT as usize
);

/// Nanoseconds that a round took per record: elapsed, and on the processor.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Nanoseconds that this thread ran on a processor. The kernel brings the figure up to date when a thread yields.
fn on_cpu() -> u64 {
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn timed(work: impl FnOnce()) -> Cost {
    let (cpu, start) = (on_cpu(), Instant::now());
    work();
    let wall = start.elapsed();
    let per_record = |nanos: f64| nanos / RECORDS as f64;
    Cost { wall: per_record(wall.as_secs_f64() * 1e9), cpu: per_record((on_cpu() - cpu) as f64) }
}

/// What is logged. Together with the small target it stays in a core's second-level cache.
struct Input {
    frames: Vec<u8>,
}

impl Input {
    const FRAMES: usize = 1_024;

    fn new() -> Self {
        let mut state = 0x9e37_79b9_u32;
        let random = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        });
        Self { frames: random.take(Self::FRAMES * FRAME).collect() }
    }

    fn frame(&self, n: usize) -> &[u8] {
        &self.frames[n % Self::FRAMES * FRAME..][..FRAME]
    }

    fn payload(&self, n: usize) -> &[u8] {
        &self.frame(n)[FRAME_HEADER_LEN..]
    }
}

/// Copy and checksum, record after record, over `to` again and again; `read_back` asks for the checksum of the copy.
fn copy_and_check(input: &Input, to: &mut [u8], read_back: bool) {
    let mut rest = &mut to[..];
    let mut sum = 0;
    for n in 0..RECORDS {
        if rest.len() < FRAME {
            rest = &mut to[..];
        }
        let (frame, after) = rest.split_at_mut(FRAME);
        let from = input.frame(n);
        frame.copy_from_slice(from);
        // Without it a copy that nobody reads could be left out.
        black_box(&mut frame[0]);
        sum ^= crc32c(0, if read_back { frame } else { from });
        rest = after;
    }
    black_box(sum);
}

fn begin(dir: &Path, io: LogIo) -> LogWriter {
    let options =
        LogOptions { io, segment_len_min: SEGMENT, segment_len_max: SEGMENT, ..LogOptions::new([7; 16]) };
    let log = LogWriter::create(Arc::new(OsFs), dir, options, 1, LogPosition::ZERO).unwrap();
    assert_eq!(log.io(), io, "the file system of the target directory offers mappings and real blocks");
    log
}

fn append_all(log: &mut LogWriter, input: &Input) {
    for n in 0..RECORDS {
        log.append(PAYLOAD, 1, |to| to.copy_from_slice(input.payload(n))).unwrap();
    }
}

fn append_records(log: &mut LogWriter, input: &Input) {
    for n in 0..RECORDS {
        let (key, value) = input.payload(n)[..black_box(KEY + VALUE)].split_at(black_box(KEY));
        let len = encoded_len(key.len(), value.len());
        log.append(len, 1, |to| {
            encode(to, KeyspaceId(0), key, Trailer(n as u64), value).unwrap();
        })
        .unwrap();
    }
}

/// A log that has come round: two segments take turns, and both were written before.
struct Recycled {
    log: LogWriter,
    _dir: TempDir,
}

impl Recycled {
    fn new(io: LogIo, input: &Input) -> Self {
        let dir = directory();
        let mut recycled = Self { log: begin(dir.path(), io), _dir: dir };
        append_all(&mut recycled.log, input);
        for _ in 0..2 {
            recycled.append(input, append_all);
        }
        recycled
    }

    /// Gives back all but the current segment.
    fn give_back(&mut self) {
        self.log.retire(self.log.segment());
        assert_eq!(self.log.disk_bytes(), u64::from(SEGMENT) * 2, "the pool holds one segment");
    }

    fn append(&mut self, input: &Input, all: fn(&mut LogWriter, &Input)) -> Cost {
        let cost = timed(|| {
            self.log.rotate().unwrap();
            all(&mut self.log, input);
        });
        self.give_back();
        cost
    }

    /// The bare work in a recycled mapping: one huge frame, its checksum by the log left out.
    fn bare(&mut self, input: &Input) -> Cost {
        self.log.rotate().unwrap();
        let mut cost = None;
        let fill = |to: &mut [u8]| cost = Some(timed(|| copy_and_check(input, to, false)));
        self.log.append(RECORDS * FRAME, 1, fill).unwrap();
        self.give_back();
        cost.unwrap()
    }
}

fn fresh(io: LogIo, input: &Input) -> Cost {
    let dir = directory();
    let mut log = None;
    timed(|| append_all(log.insert(begin(dir.path(), io)), input))
}

/// One `write(2)` a record, to the end of a file that grows.
fn written(input: &Input) -> Cost {
    let dir = directory();
    let mut file: File =
        OpenOptions::new().create_new(true).append(true).open(dir.path().join("log")).unwrap();
    timed(|| {
        for n in 0..RECORDS {
            assert_eq!(file.write(input.frame(n)).unwrap(), FRAME);
        }
    })
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

type Run<'a> = Box<dyn FnMut() -> Cost + 'a>;

/// Every contestant once a round; the first of them is what the others are compared with.
fn compare(rounds: usize, contestants: &mut [(&str, Run<'_>)]) {
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for ((_, run), costs) in contestants.iter_mut().zip(&mut costs) {
            let cost = run();
            // The first round warms up and is not counted.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    println!("ns per record of {PAYLOAD} B, median of {rounds} interleaved rounds [fastest .. slowest]");
    println!("  {:<38} {:>27} {:>11}   write(2) takes so many times it", "", "elapsed", "processor");
    for ((name, _), costs_of) in contestants.iter().zip(&costs) {
        let wall = Figure::of(costs_of.iter().map(|cost| cost.wall).collect());
        let cpu = Figure::of(costs_of.iter().map(|cost| cost.cpu).collect());
        let pairs = || costs[0].iter().zip(costs_of);
        let ratio = Figure::of(pairs().map(|(base, own)| base.wall / own.wall).collect());
        let ratio_cpu = Figure::of(pairs().map(|(base, own)| base.cpu / own.cpu).collect());
        println!(
            "  {name:<38} {:8.1} [{:6.1} .. {:6.1}] {:11.1}   {:4.1} [{:4.1} .. {:4.1}], processor {:4.1}",
            wall.median, wall.min, wall.max, cpu.median, ratio.median, ratio.min, ratio.max, ratio_cpu.median
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let input = Input::new();
    if let [only, what, times] = &arguments[..]
        && only == "only"
    {
        let mut recycled = Recycled::new(LogIo::Map, &input);
        for _ in 0..times.parse().unwrap() {
            if what == "recycled" {
                recycled.append(&input, append_all)
            } else {
                fresh(LogIo::Map, &input)
            };
        }
        return;
    }
    let rounds = arguments.first().and_then(|word| word.parse().ok()).unwrap_or(9);
    let mut small = vec![1; 256 << 10];
    let mut behind = vec![1; 256 << 10];
    let mut large = vec![1; SEGMENT as usize];
    let mut mapping = Recycled::new(LogIo::Map, &input);
    let mut mapped = Recycled::new(LogIo::Map, &input);
    let mut records = Recycled::new(LogIo::Map, &input);
    let mut positioned = Recycled::new(LogIo::Write, &input);
    compare(
        rounds,
        &mut [
            ("write(2), growing file", Box::new(|| written(&input))),
            (
                "floor, 256 KiB of warm memory",
                Box::new(|| timed(|| copy_and_check(&input, &mut small, false))),
            ),
            ("  the same, read back", Box::new(|| timed(|| copy_and_check(&input, &mut behind, true)))),
            (
                "floor, 64 MiB of warm memory",
                Box::new(|| timed(|| copy_and_check(&input, &mut large, false))),
            ),
            ("floor, recycled mapping", Box::new(|| mapping.bare(&input))),
            ("append, LogIo::Map, recycled", Box::new(|| mapped.append(&input, append_all))),
            ("  the same, of a record", Box::new(|| records.append(&input, append_records))),
            ("append, LogIo::Map, fresh", Box::new(|| fresh(LogIo::Map, &input))),
            ("append, LogIo::Write, recycled", Box::new(|| positioned.append(&input, append_all))),
            ("append, LogIo::Write, fresh", Box::new(|| fresh(LogIo::Write, &input))),
        ],
    );
}
