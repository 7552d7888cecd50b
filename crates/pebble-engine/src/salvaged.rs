//! The log of a surveyed directory: the records that count, and what its holes may have held.
//!
//! A log that a recovery takes is taken as that one would. One that it refuses gives every whole frame, in the order of
//! their numbers; a frame is whole or lost, so a batch is there whole or not at all.
//!
//! Threading: plain data.

use std::path::Path;
use std::sync::Arc;

use pebble_cursor::RangeDelete;
use pebble_format::log::LogPosition;
use pebble_format::{AppendRegion, FileName, Kind, Pinned, PinnedRecord, RecordRef, Seqno, record};
use pebble_vfs::{Fs, is_unreadable};
use pebble_wal::{LogIo, LostFrames, Recovery, SegmentRemains};

use crate::damage::{Damage, what};
use crate::doubt::{FrameAt, UserKey};
use crate::error::{Error, Result};
use crate::sorted::{Sorted, record_of};

/// Where a segment's header names the database.
pub(crate) const UUID_AT: u64 = 16;

/// What became of a part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its records count.
    Kept,
    /// Its records lie in tables already, or come from a log that was given up.
    Old,
    /// It cannot be read.
    Lost,
}

/// See the file's head.
#[derive(Default)]
pub(crate) struct LogRemains {
    /// The records that count.
    pub(crate) records: Sorted,
    /// Tombstones for what was lost among them.
    pub(crate) stand_ins: Sorted,
    /// How many were read.
    pub(crate) count: u64,
    pub(crate) last_seqno: Seqno,
    pub(crate) damage: Vec<Damage>,
    /// Keys of lost frames.
    pub(crate) lost_keys: Vec<(UserKey, FrameAt)>,
    pub(crate) lost_ranges: Vec<(RangeDelete, FrameAt)>,
    /// Parts of segments, by file, without gaps from the front.
    pub(crate) parts: Vec<(Box<str>, u64, u64, Part)>,
    /// Bytes of a torn tail.
    pub(crate) dropped_bytes: u64,
}

/// One frame, or one hole.
enum Piece {
    Frame { first: Seqno, last: Seqno, records: Vec<PinnedRecord>, part: usize },
    Hole { lost: LostFrames, file: Box<str>, part: usize },
}

/// Reads the log. `is_known` says that `first` and `floor` come from a manifest.
pub(crate) fn read(
    (fs, dir): (&Arc<dyn Fs>, &Path),
    uuid: [u8; 16],
    first: u32,
    floor: LogPosition,
    flushed: Seqno,
    is_known: bool,
) -> Result<LogRemains> {
    let mut log = LogRemains::default();
    let mut pieces: Vec<Piece> = Vec::new();
    let recovered = is_known
        .then(|| pebble_wal::recover(fs, dir, uuid, first, floor, Recovery::SalvageReadOnly, LogIo::Write));
    let refused = match recovered {
        Some(Ok(recovered)) => {
            log.dropped_bytes = recovered.dropped_bytes;
            for frame in recovered.frames() {
                let (file, start) =
                    (frame.end.segment(), frame.offset - pebble_format::log::FRAME_HEADER_LEN);
                let file: Box<str> = FileName::Log(file.into()).to_string().into();
                let end = frame.offset + frame.payload.len();
                log.take(&mut pieces, frame.region, &file, (start, frame.offset, end), frame.count);
            }
            None
        }
        Some(Err(pebble_format::Error::Io(error))) if !is_unreadable(&error) => {
            return Err(Error::from(pebble_format::Error::Io(error)));
        }
        Some(Err(error)) => Some(Some(error)),
        None => Some(None),
    };
    if let Some(error) = refused {
        let segments = pebble_wal::salvage(&**fs, dir, &uuid, first, floor)?;
        segments.into_iter().for_each(|segment| log.take_segment(&mut pieces, segment));
        // A segment that is gone leaves no bytes to be told of.
        let missing = matches!(error, Some(pebble_format::Error::MissingFile { .. }));
        if let Some(error) = error.filter(|_| missing) {
            log.damage.push(Damage::of_error(&error.into()));
        }
    }
    log.settle(pieces, flushed)?;
    Ok(log)
}

impl LogRemains {
    fn take_segment(&mut self, pieces: &mut Vec<Piece>, segment: SegmentRemains) {
        let file: Box<str> = segment.file().into();
        if let Some(error) = &segment.header {
            let blank = segment.frames.is_empty() && segment.lost.is_empty();
            // A segment that was made, and never begun, has no header and nothing else.
            if !(blank && segment.region.bytes().iter().take(64).all(|byte| *byte == 0)) {
                self.damage.push(Damage::new(&file, 0, 64.min(segment.region.filled() as u64), what(error)));
            }
        }
        let mut frames = segment.frames.into_iter().peekable();
        let mut lost = segment.lost.into_iter().peekable();
        loop {
            let frame_first = match (frames.peek(), lost.peek()) {
                (Some(frame), Some(lost)) => frame.start < lost.start,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if frame_first && let Some(frame) = frames.next() {
                let span = (frame.start, frame.payload(), frame.end);
                self.take(pieces, &segment.region, &file, span, frame.count);
            } else if let Some(lost) = lost.next() {
                let part = self.part(&file, lost.start, lost.end, Part::Lost);
                pieces.push(Piece::Hole { lost, file: file.clone(), part });
            }
        }
    }

    fn part(&mut self, file: &str, start: usize, end: usize, part: Part) -> usize {
        self.parts.push((file.into(), start as u64, end as u64, part));
        self.parts.len() - 1
    }

    /// Takes in a whole frame: its start, its payload's, its end.
    fn take(
        &mut self,
        pieces: &mut Vec<Piece>,
        region: &Arc<AppendRegion>,
        file: &str,
        (start, payload, end): (usize, usize, usize),
        count: u32,
    ) {
        let whole = Pinned::new(Arc::clone(region), |region| region.bytes());
        let bytes = region.bytes().get(payload..end).unwrap_or_default();
        let found: Result<Vec<PinnedRecord>, _> = record::records(bytes)
            .map(|found| {
                let (at, record) = found?;
                let from = payload + at;
                PinnedRecord::parse(whole.slice(from..from + record.raw().len()))
            })
            .collect();
        let seqnos = found.as_ref().ok().and_then(|all| {
            let first = all.first()?.record().seqno();
            // A reference stands in no log.
            let fits = |(seqno, record): (u64, &PinnedRecord)| {
                record.record().seqno().0 == seqno && !record.record().is_reference()
            };
            let in_order = (first.0..).zip(all).all(fits);
            (in_order && all.len() as u64 == u64::from(count))
                .then(|| (first, Seqno(first.0 + all.len() as u64 - 1)))
        });
        match (found, seqnos) {
            (Ok(records), Some((first, last))) => {
                let part = self.part(file, start, end, Part::Kept);
                pieces.push(Piece::Frame { first, last, records, part });
            }
            _ => {
                self.part(file, start, end, Part::Lost);
                self.damage.push(Damage::new(file, start as u64, end as u64, "records of a frame"));
            }
        }
    }

    /// Decides which pieces count, and what the holes between them may hide.
    fn settle(&mut self, pieces: Vec<Piece>, flushed: Seqno) -> Result<()> {
        // A log that goes on at an earlier number was begun by a recovery that had given up what lies behind it.
        let mut least = Seqno::MAX;
        let mut counts: Vec<bool> = Vec::new();
        for piece in pieces.iter().rev() {
            counts.push(match piece {
                Piece::Frame { first, last, .. } => {
                    let counts = *last < least;
                    least = least.min(*first);
                    counts
                }
                Piece::Hole { .. } => true,
            });
        }
        counts.reverse();
        let next_first = |from: usize| {
            pieces.iter().zip(&counts).skip(from).find_map(|(piece, counts)| match piece {
                Piece::Frame { first, .. } if *counts => Some(*first),
                _ => None,
            })
        };
        let ahead: Vec<Option<Seqno>> = (0..pieces.len()).map(|at| next_first(at + 1)).collect();
        let (mut all, mut stand_ins, mut last_seqno) = (Vec::new(), Vec::new(), flushed);
        for ((piece, counts), ahead) in pieces.into_iter().zip(counts).zip(ahead) {
            match piece {
                Piece::Frame { last, records, part, .. } => {
                    let kept = counts && last > flushed;
                    if !kept {
                        if let Some((.., state)) = self.parts.get_mut(part) {
                            *state = Part::Old;
                        }
                        continue;
                    }
                    last_seqno = last_seqno.max(last);
                    self.count += records.len() as u64;
                    all.extend(records);
                }
                Piece::Hole { lost, file, part } => {
                    if ahead.is_some_and(|next| next.0 <= last_seqno.0 + 1) {
                        // No number is missing: a seal, or what lies in tables already.
                        if let Some((.., state)) = self.parts.get_mut(part) {
                            *state = Part::Lost;
                        }
                        let reason = format!("{}; no record was in it that matters", what(&lost.error));
                        self.damage.push(Damage::new(&file, lost.start as u64, lost.end as u64, reason));
                        continue;
                    }
                    last_seqno = self.hole(&lost, &file, last_seqno, ahead, &mut stand_ins)?;
                }
            }
        }
        self.last_seqno = last_seqno;
        (self.records, self.stand_ins) = (Sorted::new(all), Sorted::new(stand_ins));
        Ok(())
    }

    /// Tombstones for all that a hole names, and the last number that was in it.
    fn hole(
        &mut self,
        lost: &LostFrames,
        file: &str,
        before: Seqno,
        ahead: Option<Seqno>,
        stand_ins: &mut Vec<PinnedRecord>,
    ) -> Result<Seqno> {
        let named: Vec<RecordRef<'_>> = lost
            .payloads
            .iter()
            .flat_map(|payload| record::records(payload))
            .filter_map(|found| found.ok().map(|(_, record)| record))
            .collect();
        let most =
            named.iter().map(|record| record.seqno()).filter(|seqno| lost.is_one_byte || *seqno > before);
        let last = match ahead {
            Some(next) => Seqno(next.0 - 1),
            None if lost.is_one_byte => most.max().unwrap_or(before).max(before),
            None => Seqno(before.0.saturating_add(named.len() as u64)),
        };
        let known = if lost.is_one_byte { "its keys are known" } else { "its keys are not certain" };
        let reason = format!("{}; {known}", what(&lost.error));
        self.damage.push(Damage::new(file, lost.start as u64, lost.end as u64, reason));
        if last <= before {
            return Ok(before);
        }
        for record in named {
            let (keyspace, offset) = (record.keyspace(), lost.start as u64);
            match RangeDelete::of(record) {
                Some(range) => {
                    let range = RangeDelete { seqno: last, ..range };
                    stand_ins.push(record_of(
                        keyspace,
                        record.key(),
                        last,
                        Kind::RangeDelete,
                        record.value(),
                    )?);
                    self.lost_ranges.push((range, (file.into(), offset)));
                }
                None => {
                    stand_ins.push(record_of(keyspace, record.key(), last, Kind::Delete, b"")?);
                    self.lost_keys.push(((keyspace, record.key().into()), (file.into(), offset)));
                }
            }
        }
        Ok(last)
    }
}
