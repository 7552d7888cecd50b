//! What the tests share: a small log, payloads that can be told apart, and replay into vectors.

use std::path::Path;
use std::sync::Arc;

use pebble_format::Result;
use pebble_vfs::{Fs, SimFs};
use pebble_wal::{Appended, LogIo, LogOptions, LogPosition, LogWriter, Recovered, Recovery, recover};

pub const UUID: [u8; 16] = *b"the test's uuid!";
pub const BOTH: [LogIo; 2] = [LogIo::Map, LogIo::Write];

/// The directory of the log on a simulated disk.
pub fn dir() -> &'static Path {
    Path::new("/")
}

/// Segments of 4 to 16 KiB, two of them spare.
pub fn options(io: LogIo) -> LogOptions {
    LogOptions {
        io,
        segment_len_min: 4 << 10,
        segment_len_max: 16 << 10,
        spare_max: 2,
        ..LogOptions::new(UUID)
    }
}

/// The next number of a seeded sequence (splitmix64, Steele et al. 2014).
pub fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Payload number `index`: it begins with its number and is filled by it, from 8 to about 800 bytes long.
pub fn payload(index: u32) -> Vec<u8> {
    let mut seed = u64::from(index) + 1;
    let len = 4 + 4 * (1 + next(&mut seed) % 200) as usize;
    sized(index, len)
}

/// Payload number `index` with this length.
pub fn sized(index: u32, len: usize) -> Vec<u8> {
    let mut seed = u64::from(index) << 32;
    let mut bytes = index.to_le_bytes().to_vec();
    while bytes.len() < len {
        bytes.push(next(&mut seed) as u8);
    }
    bytes
}

pub fn create(fs: &Arc<dyn Fs>, io: LogIo) -> LogWriter {
    LogWriter::create(Arc::clone(fs), dir(), options(io), 1, LogPosition::ZERO).unwrap()
}

pub fn try_append(log: &mut LogWriter, bytes: &[u8]) -> Result<Appended> {
    let count = u32::from_le_bytes(bytes[..4].try_into().unwrap()) + 1;
    log.append(bytes.len(), count, |to| to.copy_from_slice(bytes))
}

pub fn append(log: &mut LogWriter, index: u32) -> Appended {
    try_append(log, &payload(index)).unwrap()
}

/// The numbers of the recovered payloads, each checked to be whole, with the right count and place.
pub fn indexes(recovered: &Recovered) -> Vec<u32> {
    let index = |frame: pebble_wal::Frame<'_>| {
        let index = u32::from_le_bytes(frame.payload[..4].try_into().unwrap());
        assert_eq!(frame.payload, sized(index, frame.payload.len()), "payload {index}");
        assert_eq!(frame.count, index + 1);
        let in_region = frame.region.tail(frame.offset).unwrap();
        assert_eq!(in_region.as_ptr(), frame.payload.as_ptr());
        assert_eq!(frame.end.offset() as usize, frame.offset + frame.payload.len());
        index
    };
    recovered.frames().map(index).collect()
}

pub fn strict(fs: &Arc<dyn Fs>, first: u32, floor: LogPosition) -> Result<Recovered> {
    recover(fs, dir(), UUID, first, floor, Recovery::Strict, LogIo::Map)
}

pub fn lenient(fs: &Arc<dyn Fs>, first: u32, floor: LogPosition) -> Result<Recovered> {
    recover(fs, dir(), UUID, first, floor, Recovery::PointInTime, LogIo::Map)
}

/// Recovers with both kinds of memory, which must agree, and gives the numbers.
pub fn replayed(fs: &Arc<dyn Fs>, first: u32) -> Vec<u32> {
    let mapped = strict(fs, first, LogPosition::ZERO).unwrap();
    let read = recover(fs, dir(), UUID, first, LogPosition::ZERO, Recovery::Strict, LogIo::Write).unwrap();
    assert_eq!((mapped.end, mapped.sealed, mapped.promise), (read.end, read.sealed, read.promise));
    assert_eq!(mapped.dropped_bytes, read.dropped_bytes);
    let indexes = indexes(&mapped);
    assert_eq!(indexes, self::indexes(&read));
    indexes
}

pub fn sim(seed: u64) -> (SimFs, Arc<dyn Fs>) {
    let sim = SimFs::new(seed);
    (sim.clone(), Arc::new(sim))
}

/// Names and lengths in the log's directory.
pub fn files(fs: &dyn Fs) -> Vec<(String, u64)> {
    let entries = fs.list(dir()).unwrap();
    entries.into_iter().map(|entry| (entry.name.into_string().unwrap(), entry.len)).collect()
}

/// The bytes of a file.
pub fn read(fs: &dyn Fs, name: &str) -> Vec<u8> {
    let file = fs.open(&dir().join(name), pebble_vfs::Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A new disk that holds these files, synced.
pub fn disk_of(files: &[(String, Vec<u8>)]) -> Arc<dyn Fs> {
    let fs: Arc<dyn Fs> = Arc::new(SimFs::new(0));
    for (name, bytes) in files {
        write(&*fs, name, bytes);
    }
    fs
}

pub fn write(fs: &dyn Fs, name: &str, bytes: &[u8]) {
    let file = fs.open(&dir().join(name), pebble_vfs::Open::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(dir()).unwrap();
}

/// All files with their bytes.
pub fn contents(fs: &dyn Fs) -> Vec<(String, Vec<u8>)> {
    files(fs).into_iter().map(|(name, _)| (name.clone(), read(fs, &name))).collect()
}
