//! The contest with other engines, run in its own workspace so that nothing else compiles them.

use std::path::Path;

use crate::process::Command;

/// The package, from the root.
const MANIFEST: &str = "benches/peers/Cargo.toml";

/// Where the report goes unless the caller says otherwise.
const OUT: &str = "docs/benchmarks";

/// Hands `arguments` on; the report goes to [`OUT`], and the databases to the package's target directory, unless they
/// say otherwise.
pub fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    command(arguments).run(root)
}

fn command(arguments: &[&str]) -> Command {
    let names = |option: &str| {
        arguments.iter().any(|word| {
            word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    let mut words = vec![
        "run",
        "--release",
        "--locked",
        "--features",
        "peers",
        "--manifest-path",
        MANIFEST,
        "--",
        "contest",
    ];
    words.extend_from_slice(arguments);
    if !names("--out") {
        words.extend(["--out", OUT]);
    }
    if !names("--dir") {
        words.extend(["--dir", "benches/peers/target"]);
    }
    Command::cargo(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_once() {
        let words = |arguments: &[&str]| command(arguments).words.join(" ");
        assert!(words(&[]).ends_with("-- contest --out docs/benchmarks --dir benches/peers/target"));
        assert!(words(&["--dir", "d"]).ends_with("-- contest --dir d --out docs/benchmarks"));
        assert!(words(&["--dir=d", "--out=o"]).ends_with("-- contest --dir=d --out=o"));
    }
}
