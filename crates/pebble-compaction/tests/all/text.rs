//! A tree as text: one case of a golden file.
//!
//! ```text
//!   # What the case is about.
//!   policy: last_percent 50, fan_out 4 2 2 2 2 2
//!   hints: idle, newest 900, oldest_reader 10, wanted a-c by user
//!   L0 r9: [a-k] 60K t5  [m-z] 4K busy
//!   L6 r1: [a-f] 1M  [g-z..zz] 2M n20 s7
//!   plan:
//! ```
//!
//! A table is its first and its last key, behind `..` where its range deletes end; its size; `t` tombstones of `n`
//! records (otherwise one for each 100 bytes); `s` the newest sequence number (otherwise 1000 times the place of its
//! run from the oldest on, and 999 more); `wasteful` where it refers to values that are mostly dead, and `v` the bytes
//! of all values that it refers to; `busy` where a merge has it, `aside` where what it holds cannot be read. `=3:`
//! begins a keyspace. A policy is the default one with a `last_percent` of 70, and what the case says.

use std::collections::BTreeMap;

use pebble_compaction::{Busy, Hints, KeyRange, Plan, Policy, Wanted};
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
use pebble_manifest::{Edit, NewRun, TableMeta, Version};

pub struct Case {
    pub version: Version,
    pub busy: Busy,
    pub policy: Policy,
    pub idle: bool,
    pub newest: Seqno,
    pub oldest_reader: Seqno,
    pub wanted: Vec<Wanted>,
    wasteful: Vec<u64>,
    pub set_aside: Vec<u64>,
    /// What is printed for each table's number.
    names: BTreeMap<u64, String>,
}

impl Case {
    pub fn hints(&self) -> Hints<'_> {
        Hints {
            idle: self.idle,
            newest: self.newest,
            oldest_reader: self.oldest_reader,
            wanted: &self.wanted,
            wasteful: &self.wasteful,
            set_aside: &self.set_aside,
        }
    }

    /// The plan's own text, tables by their keys.
    pub fn show(&self, plan: Option<&Plan>) -> String {
        let Some(plan) = plan else { return "nothing".into() };
        let words = plan.to_string();
        let words = words.split(' ').map(|word| {
            let (number, comma) = match word.strip_suffix(',') {
                Some(word) => (word.strip_prefix('#'), ","),
                None => (word.strip_prefix('#'), ""),
            };
            match number {
                Some(number) => self.names[&number.parse().unwrap()].clone() + comma,
                None => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    pub fn parse(lines: &[&str]) -> Self {
        let runs = lines.iter().filter(|line| line.starts_with('L')).count() as u64;
        let mut case = Self {
            version: Version::default(),
            busy: Busy::default(),
            policy: Policy { last_percent: 70, ..Policy::default() },
            idle: false,
            newest: Seqno(runs * 1000 + 999),
            oldest_reader: Seqno::MAX,
            wanted: Vec::new(),
            wasteful: Vec::new(),
            set_aside: Vec::new(),
            names: BTreeMap::new(),
        };
        let (mut added_runs, mut busy, mut time) = (Vec::new(), Vec::new(), runs);
        for line in lines {
            let (head, rest) = line.split_once(':').unwrap_or((line, ""));
            match head {
                "policy" => rest.split(',').for_each(|knob| set_knob(&mut case.policy, knob)),
                "hints" => rest.split(',').for_each(|hint| case.set_hint(hint)),
                head if head.starts_with('L') => {
                    let (level, run) = head[1..].split_once(" r").unwrap();
                    let mut tables = Vec::new();
                    for words in rest.split('[').skip(1) {
                        let number = case.names.len() as u64 + 1;
                        let (table, name, is_busy) = parse_table(words, number, time * 1000);
                        case.wasteful.extend(words.contains("wasteful").then_some(number));
                        case.set_aside.extend(words.contains("aside").then_some(number));
                        case.names.insert(number, name);
                        busy.extend(is_busy.then_some(number));
                        tables.push(table);
                    }
                    time -= 1;
                    added_runs.push(NewRun { level: number(level) as u8, run: number(run), tables });
                }
                _ => {}
            }
        }
        case.version = Version::default().apply(&Edit { added_runs, ..Edit::default() }).unwrap();
        if !busy.is_empty() {
            case.busy.insert(&Plan::Move { tables: busy, to: 6 });
        }
        case
    }

    fn set_hint(&mut self, hint: &str) {
        match *hint.split_whitespace().collect::<Vec<_>>() {
            ["idle"] => self.idle = true,
            ["newest", seqno] => self.newest = Seqno(number(seqno)),
            ["oldest_reader", seqno] => self.oldest_reader = Seqno(number(seqno)),
            ["wanted", range] => self.wanted.push(Wanted { range: key_range(range), by_user: false }),
            ["wanted", range, "by", "user"] => {
                self.wanted.push(Wanted { range: key_range(range), by_user: true });
            }
            _ => panic!("hint {hint}"),
        }
    }
}

/// Such as `a-c`, from `a` to before `c`; `a-` to the keyspace's end; `=3:a-c`.
pub fn key_range(text: &str) -> KeyRange {
    let (keyspace, text) = keyspace(text);
    let (start, end) = text.split_once('-').unwrap();
    KeyRange { keyspace, start: start.as_bytes().into(), end: end.as_bytes().into() }
}

fn keyspace(text: &str) -> (KeyspaceId, &str) {
    match text.strip_prefix('=').and_then(|text| text.split_once(':')) {
        Some((keyspace, rest)) => (KeyspaceId(number(keyspace) as u16), rest),
        None => (KeyspaceId::DEFAULT, text),
    }
}

/// A number, with K, M, G or T for powers of 1024.
pub fn number(text: &str) -> u64 {
    let text = text.trim();
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => 40,
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("number {text}")) << shift
}

fn set_knob(policy: &mut Policy, knob: &str) {
    let words: Vec<_> = knob.split_whitespace().collect();
    let value = || number(words[1]);
    match words[0] {
        "leveled" => *policy = Policy::leveled(),
        "tiered" => *policy = Policy::tiered(value() as u16),
        "fan_out" => {
            for (to, from) in policy.fan_out.iter_mut().zip(&words[1..]) {
                *to = number(from) as u16;
            }
        }
        "joins_percent" => policy.joins_percent = value() as u32,
        "last_percent" if words[1] == "never" => policy.last_percent = Policy::NEVER,
        "last_percent" => policy.last_percent = value() as u32,
        "tombstones_min" => policy.tombstones_min = value(),
        "merge_bytes_max" => policy.merge_bytes_max = value(),
        "crumbs" => policy.crumbs = value() as u16,
        _ => panic!("knob {knob}"),
    }
}

/// The words behind `[`, as far as the next table.
fn parse_table(words: &str, table: u64, seqno: u64) -> (TableMeta, String, bool) {
    let (keys, attributes) = words.split_once(']').unwrap();
    let (space, plain) = keyspace(keys);
    let (bounds, reach) = match plain.split_once("..") {
        Some((bounds, reach)) => (bounds, Some(reach.as_bytes().into())),
        None => (plain, None),
    };
    let (first, last) = bounds.split_once('-').unwrap_or((bounds, bounds));
    let (mut len, mut count, mut tombstones, mut max, mut busy) = (0, None, 0, seqno + 999, false);
    let mut apart = 0;
    for word in attributes.split_whitespace() {
        match word.split_at(1) {
            ("t", rest) => tombstones = number(rest),
            ("n", rest) => count = Some(number(rest)),
            ("s", rest) => max = number(rest),
            ("b", "usy") | ("a", "side") => busy = true,
            ("w", "asteful") => {}
            ("v", rest) => apart = number(rest),
            _ => len = number(word),
        }
    }
    let min = Seqno(seqno.min(max));
    let key = |user_key: &str| {
        let trailer = Trailer::new(min, Kind::Put);
        OwnedKey::new(InternalKey { keyspace: space, user_key: user_key.as_bytes(), trailer })
    };
    let meta = TableMeta {
        number: table,
        len,
        footer_crc: 0,
        count: count.unwrap_or((len / 100).max(1)),
        tombstones,
        first: key(first),
        last: key(last),
        reach,
        seqno_min: min,
        seqno_max: Seqno(max),
        apart,
    };
    (meta, format!("[{keys}]"), busy)
}
