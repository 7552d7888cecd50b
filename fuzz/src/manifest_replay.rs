//! A whole manifest: header, frames, whatever is behind them.
//!
//! Oracle: an error is a corruption or another version; a state that is taken is read back equal when it is written
//! again; nothing is written by reading; and the log goes on, by an append or, behind a torn tail, by a roll alone.
//!
//! Threading: as every body.

use std::path::Path;

use pebble_manifest::{Edit, recover};

use crate::disk::{DIR, assert_told, disk, dump};
use crate::forge;
use crate::manifest_edit::{files, history, manifest, read, shared};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target =
    Target { name: "manifest_replay", run, repair: Some(forge::manifest), seeds, rounds: 8_000 };

fn run(bytes: &[u8]) {
    let files = files(bytes);
    let sim = disk(&files);
    let found = read(&sim, bytes.len());
    assert!(dump(&sim) == files, "a recovery wrote");
    let mut found = match found {
        Ok(found) => found,
        Err(error) => return assert_told(&error),
    };
    assert_eq!(found.log.len() + found.dropped_bytes, bytes.len() as u64);
    let Some(next) = found.state.next_file.checked_add(1) else { return };
    let edit = Edit { next_file: Some(next), ..Edit::default() };
    let state = found.state.apply(&edit).unwrap();
    if found.dropped_bytes > 0 {
        assert!(found.log.wants_roll() && found.log.append(&edit).is_err(), "an append behind a torn tail");
        found.log.roll(found.log.number() + 1, &state).unwrap();
    } else {
        found.log.append(&edit).unwrap();
    }
    let again = recover(&shared(&sim), Path::new(DIR)).unwrap().unwrap();
    assert_eq!((again.state, again.dropped_bytes), (state, 0));
}

fn seeds() -> Vec<Seed> {
    let edits = history();
    let whole = manifest(&edits[..4]);
    let torn = whole[..whole.len() - 3].to_vec();
    vec![("one", manifest(&edits[..1])), ("four", whole), ("torn", torn)]
}
