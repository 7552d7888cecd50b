//! Running the program.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Stdout of a run that must have been fine.
    #[track_caller]
    pub fn ok(self) -> String {
        String::from_utf8(self.ok_bytes()).unwrap()
    }

    #[track_caller]
    pub fn ok_bytes(self) -> Vec<u8> {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Stderr of a run that must have ended with `code` and printed no data.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!((self.code, &self.stdout[..]), (code, &b""[..]), "{self:?}");
        self.stderr
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pebble"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    finish(&mut command(args), b"")
}

pub fn run_with_input<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
    finish(command(args).stdin(Stdio::piped()), input)
}

fn finish(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
}

/// A directory for one test, with a place for a database in it.
pub struct Bed(TempDir);

impl Bed {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("db")
    }

    /// Runs `verb DB args`.
    pub fn run<S: AsRef<OsStr>>(&self, verb: &str, args: impl IntoIterator<Item = S>) -> Ran {
        run(self.arguments(verb, args))
    }

    pub fn arguments<S: AsRef<OsStr>>(
        &self,
        verb: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Vec<std::ffi::OsString> {
        let mut all = vec![verb.into(), self.db().into_os_string()];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        all
    }

    /// A database with a table: so many rows that closing it flushes.
    pub fn with_table() -> Self {
        let bed = Self::new();
        let rows: String = (0..20_000).map(|n| format!("key{n:06}\tvalue {n:060}\n")).collect();
        std::fs::write(bed.path("rows.tsv"), rows).unwrap();
        bed.run("import", [bed.path("rows.tsv")]).ok();
        bed
    }

    /// The only table.
    pub fn table(&self) -> PathBuf {
        let mut tables = files(&self.db());
        tables.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
        assert_eq!(tables.len(), 1);
        tables.remove(0)
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
