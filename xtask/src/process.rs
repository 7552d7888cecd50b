//! Commands, and the files of the repository.
//!
//! A [`Command`] is data before it is a process, so that a failed step can print the line that repeats it. Nothing
//! here needs git: a source archive is checked like a clone.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::Value;

/// A command line with the variables it adds to the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Variables set for this command only.
    pub env: Vec<(String, String)>,
    /// The program and its arguments; never empty.
    pub words: Vec<String>,
}

impl Command {
    /// A program and its arguments.
    pub fn new(words: &[&str]) -> Self {
        Self { env: Vec::new(), words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// `cargo` with these arguments.
    pub fn cargo(arguments: &[&str]) -> Self {
        Self::new(&[&["cargo"], arguments].concat())
    }

    /// The same command with one more variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs in `root` with the terminal's own output. An error names the command that repeats the run.
    pub fn run(&self, root: &Path) -> Result<(), String> {
        let status = self.process(root)?.status().map_err(|error| format!("{error}: {self}"))?;
        self.judge(status)
    }

    /// Runs in `root` and returns beside the outcome what it wrote to stdout and stderr, in the order of the writes.
    pub fn run_apart(&self, root: &Path) -> (Result<(), String>, String) {
        let mut told = Vec::new();
        let outcome = self.run_into(root, &mut told);
        (outcome, String::from_utf8_lossy(&told).into_owned())
    }

    fn run_into(&self, root: &Path, told: &mut Vec<u8>) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{error}: {self}");
        let mut process = self.process(root)?;
        let (mut reader, writer) = std::io::pipe().map_err(failed)?;
        process.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
        let mut child = process.spawn().map_err(failed)?;
        // It holds the ends that are written to; the child has its own.
        drop(process);
        let read = reader.read_to_end(told).map_err(failed);
        let status = child.wait().map_err(failed)?;
        read?;
        self.judge(status)
    }

    fn judge(&self, status: ExitStatus) -> Result<(), String> {
        if status.success() { Ok(()) } else { Err(format!("{status}; to repeat it:\n  {self}")) }
    }

    /// Runs in `root` and returns what it wrote to stdout.
    pub fn output(&self, root: &Path) -> Result<String, String> {
        let output = self.process(root)?.output().map_err(|error| format!("{error}: {self}"))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}; to repeat it:\n  {self}\n{told}", output.status));
        }
        String::from_utf8(output.stdout).map_err(|error| format!("{error}: {self}"))
    }

    fn process(&self, root: &Path) -> Result<std::process::Command, String> {
        let (program, arguments) = self.words.split_first().ok_or("an empty command")?;
        let mut process = std::process::Command::new(program);
        process.args(arguments).current_dir(root).envs(self.env.iter().cloned());
        Ok(process)
    }
}

/// As a shell takes it: `NAME="value" program argument`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}=\"{value}\" ")?;
        }
        f.write_str(&self.words.join(" "))
    }
}

/// The binaries that cargo's messages name.
pub fn executables(messages: &str) -> Vec<String> {
    let values = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter_map(|value| value["executable"].as_str().map(str::to_owned)).collect()
}

/// The directory above this package.
pub fn repository_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// A text file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Relative to the root, with `/` between the parts.
    pub path: String,
    /// The whole content.
    pub text: String,
}

/// What a build, a fuzzer or git made, never sources. In a linked work tree `.git` is a file.
const SKIPPED: [&str; 3] = [".git", "target", "artifacts"];

/// Every UTF-8 file under `root`, ordered by path. Files that are not UTF-8 are data and left out.
pub fn text_files(root: &Path) -> Result<Vec<TextFile>, String> {
    let mut files = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let told = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in std::fs::read_dir(&directory).map_err(told)? {
            let entry = entry.map_err(told)?;
            let kind = entry.file_type().map_err(told)?;
            let name = entry.file_name();
            if SKIPPED.iter().any(|skipped| name == *skipped) {
                continue;
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(std::fs::read(entry.path()).map_err(told)?)
            {
                files.push(TextFile { path: relative(root, &entry.path()), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn relative(root: &Path, path: &Path) -> String {
    let parts: Vec<_> =
        path.strip_prefix(root).unwrap_or(path).iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_prints_as_a_shell_takes_it() {
        let command = Command::cargo(&["test", "-p", "x"]).with_env("RUSTFLAGS", "--cfg loom");
        assert_eq!(command.to_string(), "RUSTFLAGS=\"--cfg loom\" cargo test -p x");
    }

    #[test]
    fn a_failed_command_names_itself() {
        let error = Command::cargo(&["no-such-verb-of-cargo"]).output(&repository_root()).unwrap_err();
        assert!(error.contains("  cargo no-such-verb-of-cargo"), "{error}");
    }

    #[test]
    fn what_a_command_wrote_is_kept_also_if_it_failed() {
        let script = "echo out; echo err >&2; exit 3";
        let (outcome, told) = Command::new(&["sh", "-c", script]).run_apart(&repository_root());
        assert_eq!(told, "out\nerr\n");
        assert!(outcome.unwrap_err().contains("3; to repeat it:\n  sh -c"));
    }

    #[test]
    fn binaries_are_read_from_messages() {
        let messages = "{\"executable\":null}\n{\"executable\":\"/t/a\"}\nnot json\n{\"reason\":\"x\"}\n";
        assert_eq!(executables(messages), ["/t/a"]);
    }

    #[test]
    fn the_walk_finds_sources_and_skips_builds() {
        let files = text_files(&repository_root()).unwrap();
        assert!(files.iter().any(|file| file.path == "xtask/src/process.rs"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
        assert!(files.is_sorted_by(|a, b| a.path < b.path));
    }
}
