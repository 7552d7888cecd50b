//! Real input that any machine has: the sources in cargo's registry, or else the files of the Rust toolchain, or else
//! this program, cut in pieces. It is read once and held, so that what was read is what is checked.

use std::env;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Result};
use crate::mix::fnv1a;

/// A longer file becomes several records.
const PIECE_LEN: usize = 1 << 20;
/// Pieces of this program, so that even it alone makes many records.
const SMALL_PIECE_LEN: usize = 4 << 10;
/// With less than this a place is passed over for the next one.
const WORTH: u64 = 4 << 20;

/// A file, or a piece of one, and what the second keyspace says about it.
pub struct Item {
    /// Path below the source, with `#` and a number where it is a piece.
    pub key: Vec<u8>,
    /// Content.
    pub value: Vec<u8>,
    /// The fact that belongs to it.
    pub fact: Fact,
}

/// An entry of the index by content: all that have one content stand together.
pub struct Fact {
    /// The hash of the content in base16, a blank, and the item's key.
    pub key: Vec<u8>,
    /// Bytes, lines and words.
    pub value: Vec<u8>,
}

impl Fact {
    /// Of a record.
    pub fn of(key: &[u8], value: &[u8]) -> Self {
        let mut fact_key = format!("{:016x} ", fnv1a(value)).into_bytes();
        fact_key.extend_from_slice(key);
        let lines = value.iter().filter(|byte| **byte == b'\n').count();
        let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        let text = format!("{} bytes, {lines} lines, {words} words", value.len());
        Self { key: fact_key, value: text.into_bytes() }
    }

    /// Bytes of key and value.
    pub fn len(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}

/// What is imported: items in the order of their keys.
pub struct Corpus {
    /// Where it comes from, for people.
    pub name: String,
    /// Files read.
    pub files: u64,
    /// The items.
    pub items: Vec<Item>,
    /// Bytes of keys and contents, the index not counted.
    pub bytes: u64,
}

/// How much is taken.
#[derive(Clone, Copy)]
pub struct Cap {
    /// Bytes of keys and contents.
    pub bytes: u64,
    /// Items.
    pub items: usize,
}

impl Corpus {
    /// The first of the known places that holds enough, or `source` if one is named.
    pub fn find(source: Option<&Path>, cap: Cap) -> Result<Self> {
        if let Some(source) = source {
            let corpus = Self::read(source, source.display().to_string(), cap)?;
            return match corpus.items.is_empty() {
                true => Err(Failure::at(source, "no files to import")),
                false => Ok(corpus),
            };
        }
        let places = [("the sources in cargo's registry", registry()), ("the Rust toolchain", sysroot())];
        for (name, place) in places {
            let Some(place) = place.filter(|place| place.is_dir()) else { continue };
            let corpus = Self::read(&place, name.to_owned(), cap)?;
            if corpus.bytes >= cap.bytes.min(WORTH) {
                return Ok(corpus);
            }
        }
        let program = env::current_exe().map_err(|error| Failure::Failed(error.to_string()))?;
        let content = fs::read(&program).map_err(|error| Failure::at(&program, error))?;
        let mut corpus = Self { name: "this program".to_owned(), files: 1, items: Vec::new(), bytes: 0 };
        corpus.add(b"pebble", &content, SMALL_PIECE_LEN, cap);
        Ok(corpus)
    }

    /// The files under `root` in the order of their paths, until there is enough. What cannot be read is passed over:
    /// the demo is about the database.
    fn read(root: &Path, name: String, cap: Cap) -> Result<Self> {
        let mut corpus = Self { name, files: 0, items: Vec::new(), bytes: 0 };
        let mut waiting = children(root).map_err(|error| Failure::at(root, error))?;
        while let Some(path) = waiting.pop().filter(|_| corpus.has_room(cap)) {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                waiting.extend(children(&path).unwrap_or_default());
            } else if metadata.is_file()
                && let Ok(content) = fs::read(&path)
            {
                let key = path.strip_prefix(root).unwrap_or(&path);
                corpus.add(key.as_os_str().as_bytes(), &content, PIECE_LEN, cap);
                corpus.files += 1;
            }
        }
        corpus.items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        corpus.items.dedup_by(|a, b| a.key == b.key);
        corpus.bytes = corpus.items.iter().map(Item::len).sum();
        Ok(corpus)
    }

    fn has_room(&self, cap: Cap) -> bool {
        self.bytes < cap.bytes && self.items.len() < cap.items
    }

    fn add(&mut self, key: &[u8], content: &[u8], piece_len: usize, cap: Cap) {
        let whole = content.len() <= piece_len;
        let pieces = if content.is_empty() { vec![content] } else { content.chunks(piece_len).collect() };
        for (number, piece) in pieces.into_iter().enumerate() {
            if !self.has_room(cap) {
                return;
            }
            let mut key = key.to_vec();
            if !whole {
                key.extend_from_slice(format!("#{number:06}").as_bytes());
            }
            let fact = Fact::of(&key, piece);
            let item = Item { key, value: piece.to_vec(), fact };
            self.bytes += item.len();
            self.items.push(item);
        }
    }
}

impl Item {
    /// Bytes of key and content.
    pub fn len(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}

/// Entries of a directory, the first one last, as a stack wants them.
fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn registry() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    Some(home.or_else(|| Some(env::home_dir()?.join(".cargo")))?.join("registry/src"))
}

fn sysroot() -> Option<PathBuf> {
    let printed = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    let root = PathBuf::from(String::from_utf8(printed.stdout).ok()?.trim_end());
    [root.join("share/doc"), root.join("lib")].into_iter().find(|place| place.is_dir())
}
