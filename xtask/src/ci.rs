//! `cargo xtask ci`: every check but the test suite, in order.
//!
//! The order is cheapest first, so that a slip of the pen is told in seconds. Steps that keep one core busy for long
//! go side by side, as many as there are cores, each in a build directory that it shares with its kind only; what they
//! write is told in the steps' order. The suite itself, `cargo test --workspace --locked`, is left to `.ci/run`, which
//! runs it last.

use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::pool::{self, Done};
use crate::process::{self, Command, TextFile};
use crate::{audit, layers, tidy};

/// Crates with models, run in a build of their own under `--cfg loom`: `tests/loom.rs`, or `src/models.rs` where they
/// are of what the crate does not show.
const LOOM_CRATES: &[&str] =
    &["pebble-engine", "pebble-format", "pebble-memtable", "pebble-sstable", "pebble-wal"];

/// The manifest of the fuzz targets, which are a workspace of their own.
const FUZZ: &str = "fuzz/Cargo.toml";

/// One step: what it is called, and what it does.
struct Step {
    name: String,
    work: Work,
}

enum Work {
    Check(fn(&Path) -> Result<(), String>),
    Run(Command),
    /// Beside its neighbours of this kind.
    Beside(Command),
    /// Left out, with the reason.
    Skip(String),
}

impl Step {
    /// The command, if the step may run beside others.
    fn beside(&self) -> Option<(&str, &Command)> {
        match &self.work {
            Work::Beside(command) => Some((&self.name, command)),
            _ => None,
        }
    }

    fn run(&self, root: &Path) -> Result<(), String> {
        match &self.work {
            Work::Check(check) => {
                check(root).map_err(|what| format!("{what}; to repeat it:\n  cargo xtask {}", self.name))
            }
            Work::Run(command) | Work::Beside(command) => command.run(root),
            Work::Skip(reason) => {
                eprintln!("   SKIPPED: {reason}");
                Ok(())
            }
        }
    }
}

/// Runs the steps and stops at the first that fails.
pub fn run(root: &Path) -> Result<(), String> {
    let steps = steps(&process::text_files(root)?, Toolchain::of_this_machine(root))?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let begin = Instant::now();
    run_steps(&steps, root, cores, |told| eprintln!("{told}"))?;
    eprintln!("== ci passed, {} steps, {:.1} s", steps.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

fn run_steps(steps: &[Step], root: &Path, cores: usize, mut tell: impl FnMut(&str)) -> Result<(), String> {
    let failed = |name: &str, what: String| format!("{name} failed: {what}");
    let seconds = |took: Duration| format!("   {:.1} s", took.as_secs_f64());
    for group in steps.chunk_by(|a, b| a.beside().is_some() && b.beside().is_some()) {
        let jobs: Vec<(&str, &Command)> = group.iter().filter_map(Step::beside).collect();
        if jobs.is_empty() {
            for step in group {
                tell(&format!("== {}", step.name));
                let begin = Instant::now();
                step.run(root).map_err(|what| failed(&step.name, what))?;
                tell(&seconds(begin.elapsed()));
            }
            continue;
        }
        tell(&format!("== {} steps side by side, {cores} at a time", jobs.len()));
        let work = |(name, command): &(&str, &Command)| {
            let begin = Instant::now();
            let (outcome, output) = command.run_apart(root);
            Done { outcome: outcome.map_err(|what| failed(name, what)), output, took: begin.elapsed() }
        };
        pool::in_order(cores, &jobs, work, |(name, _), done| {
            tell(&format!("== {name}\n{}{}", done.output, seconds(done.took)));
        })?;
    }
    Ok(())
}

/// What the fuzz targets need beyond the default toolchain.
#[derive(Clone, Copy)]
struct Toolchain {
    nightly: bool,
    cxx: bool,
}

impl Toolchain {
    fn of_this_machine(root: &Path) -> Self {
        let answers = |words: &[&str]| Command::new(words).output(root).is_ok();
        Self { nightly: answers(&["cargo", "+nightly", "--version"]), cxx: answers(&["c++", "--version"]) }
    }
}

fn steps(files: &[TextFile], toolchain: Toolchain) -> Result<Vec<Step>, String> {
    let step = |name: &str, work| Step { name: name.to_owned(), work };
    let cargo = |arguments: &[&str]| Work::Run(Command::cargo(arguments));
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
    let doc = Command::cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"]);
    let mut steps = vec![
        step("fmt", cargo(&["fmt", "--all", "--check"])),
        step("layers", Work::Check(layers::run)),
        step("tidy", Work::Check(tidy::run)),
        step("clippy", cargo(&clippy)),
        step("doc", Work::Run(doc.with_env("RUSTDOCFLAGS", "-D warnings"))),
    ];
    // Models wait for each other's builds, so the scenarios, with a build of their own, stand before them and what is
    // counted behind them.
    for name in shuttle_scenarios(files) {
        let scenarios = Command::cargo(&["test", "-p", name, "--release", "--locked", "--test", "shuttle"])
            .with_env("RUSTFLAGS", "--cfg shuttle")
            .with_env("CARGO_TARGET_DIR", "target/shuttle");
        steps.push(step(&format!("shuttle {name}"), Work::Beside(scenarios)));
    }
    for (name, which) in loom_models(files)? {
        let arguments =
            ["test", "-p", name, "--release", "--locked"].into_iter().chain(which.iter().copied());
        let model = Command::cargo(&arguments.collect::<Vec<_>>())
            .with_env("RUSTFLAGS", "--cfg loom")
            .with_env("CARGO_TARGET_DIR", "target/loom");
        steps.push(step(&format!("loom {name}"), Work::Beside(model)));
    }
    let instructions = Command::cargo(&["--locked", "xtask", "instructions"]);
    steps.push(step("instructions", Work::Beside(instructions)));
    for (name, example) in examples(files) {
        let arguments = ["run", "--quiet", "--locked", "-p", name, "--example", example];
        steps.push(step(&format!("example {name} {example}"), cargo(&arguments)));
    }
    steps.push(step("audit", Work::Check(audit::run)));
    if files.iter().any(|file| file.path == FUZZ) {
        let clippy = [
            "clippy",
            "--manifest-path",
            FUZZ,
            "--no-default-features",
            "--all-targets",
            "--locked",
            "--quiet",
        ];
        let clippy = [&clippy[..], &["--", "-D", "warnings"]].concat();
        let replay = ["test", "--manifest-path", FUZZ, "--no-default-features", "--locked", "--quiet"];
        steps.push(step("fuzz fmt", cargo(&["fmt", "--manifest-path", FUZZ, "--check"])));
        steps.push(step("fuzz clippy", Work::Run(in_fuzz_target(&clippy))));
        steps.push(step("fuzz replay", Work::Run(in_fuzz_target(&replay))));
    }
    steps.push(step("fuzz targets", fuzz(files, toolchain)));
    Ok(steps)
}

/// A crate, and the arguments that choose its models.
type Models<'a> = (&'a str, &'static [&'static str]);

/// The crates of the table that have models. A model outside the table would never run, so it is an error.
fn loom_models(files: &[TextFile]) -> Result<Vec<Models<'_>>, String> {
    let places: [Models<'_>; 2] =
        [("/tests/loom.rs", &["--test", "loom"]), ("/src/models.rs", &["--lib", "models::"])];
    let mut models = Vec::new();
    for file in files {
        let Some(rest) = file.path.strip_prefix("crates/") else { continue };
        for (place, which) in places {
            let Some(name) = rest.strip_suffix(place) else { continue };
            if !LOOM_CRATES.contains(&name) {
                return Err(format!("{}: {name} is not in LOOM_CRATES of xtask/src/ci.rs", file.path));
            }
            models.push((name, which));
        }
    }
    Ok(models)
}

/// The crates with scenarios for randomized schedules.
fn shuttle_scenarios(files: &[TextFile]) -> impl Iterator<Item = &str> {
    files.iter().filter_map(|file| file.path.strip_prefix("crates/")?.strip_suffix("/tests/shuttle.rs"))
}

/// Crate and name of every example: `examples/name.rs` or `examples/name/main.rs`.
fn examples(files: &[TextFile]) -> Vec<(&str, &str)> {
    let found = files.iter().filter_map(|file| {
        let (name, rest) = file.path.strip_prefix("crates/")?.split_once("/examples/")?;
        let example = rest.strip_suffix("/main.rs").or_else(|| rest.strip_suffix(".rs"))?;
        (!name.contains('/') && !example.contains('/')).then_some((name, example))
    });
    found.collect()
}

/// A command on the fuzz workspace, whose builds are kept beside the others.
fn in_fuzz_target(arguments: &[&str]) -> Command {
    Command::cargo(arguments).with_env("CARGO_TARGET_DIR", "target/fuzz")
}

fn fuzz(files: &[TextFile], toolchain: Toolchain) -> Work {
    if !files.iter().any(|file| file.path == FUZZ) {
        return Work::Skip("there is no fuzz directory".to_owned());
    }
    match toolchain {
        Toolchain { nightly: false, .. } => Work::Skip("no nightly toolchain".to_owned()),
        Toolchain { cxx: false, .. } => Work::Skip("no C++ compiler, which libFuzzer needs".to_owned()),
        _ => Work::Run(in_fuzz_target(&[
            "+nightly",
            "check",
            "--manifest-path",
            FUZZ,
            "--all-targets",
            "--locked",
        ])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Toolchain = Toolchain { nightly: true, cxx: true };

    fn tree(paths: &[&str]) -> Vec<TextFile> {
        paths.iter().map(|path| TextFile { path: (*path).to_owned(), text: String::new() }).collect()
    }

    fn told(steps: &[Step]) -> Vec<String> {
        let line = |step: &Step| match &step.work {
            Work::Check(_) => step.name.clone(),
            Work::Run(command) => command.to_string(),
            Work::Beside(command) => format!("beside: {command}"),
            Work::Skip(reason) => format!("skip: {reason}"),
        };
        steps.iter().map(line).collect()
    }

    #[test]
    fn the_steps_stand_in_their_order() {
        let files = tree(&[
            "crates/pebble-engine/src/models.rs",
            "crates/pebble-wal/tests/loom.rs",
            "crates/pebble-wal/examples/log.rs",
            "crates/pebble-db/tests/shuttle.rs",
            "fuzz/Cargo.toml",
        ]);
        assert_eq!(
            told(&steps(&files, EVERYTHING).unwrap()),
            [
                "cargo fmt --all --check",
                "layers",
                "tidy",
                "cargo clippy --workspace --all-targets --locked --quiet -- -D warnings",
                "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps --locked --quiet",
                "beside: RUSTFLAGS=\"--cfg shuttle\" CARGO_TARGET_DIR=\"target/shuttle\" \
                 cargo test -p pebble-db --release --locked --test shuttle",
                "beside: RUSTFLAGS=\"--cfg loom\" CARGO_TARGET_DIR=\"target/loom\" \
                 cargo test -p pebble-engine --release --locked --lib models::",
                "beside: RUSTFLAGS=\"--cfg loom\" CARGO_TARGET_DIR=\"target/loom\" \
                 cargo test -p pebble-wal --release --locked --test loom",
                "beside: cargo --locked xtask instructions",
                "cargo run --quiet --locked -p pebble-wal --example log",
                "audit",
                "cargo fmt --manifest-path fuzz/Cargo.toml --check",
                "CARGO_TARGET_DIR=\"target/fuzz\" \
                 cargo clippy --manifest-path fuzz/Cargo.toml --no-default-features --all-targets --locked --quiet \
                 -- -D warnings",
                "CARGO_TARGET_DIR=\"target/fuzz\" \
                 cargo test --manifest-path fuzz/Cargo.toml --no-default-features --locked --quiet",
                "CARGO_TARGET_DIR=\"target/fuzz\" \
                 cargo +nightly check --manifest-path fuzz/Cargo.toml --all-targets --locked",
            ]
        );
    }

    type Script<'a> = (&'a str, fn(Command) -> Work, &'a str);

    /// What is told of these steps, with a shell's scripts for commands, and the outcome. Times are left out.
    fn run_of(steps: &[Script<'_>]) -> (Vec<String>, Result<(), String>) {
        let step = |&(name, work, script): &Script<'_>| Step {
            name: name.to_owned(),
            work: work(Command::new(&["sh", "-c", script])),
        };
        let steps: Vec<Step> = steps.iter().map(step).collect();
        let mut told = Vec::new();
        let outcome = run_steps(&steps, &process::repository_root(), 2, |text| {
            told.extend(text.lines().filter(|line| !line.ends_with(" s")).map(str::to_owned));
        });
        (told, outcome)
    }

    #[test]
    fn steps_side_by_side_are_told_in_their_order() {
        let (told, outcome) = run_of(&[
            ("alone", Work::Run, "true"),
            ("slow", Work::Beside, "sleep 0.3; echo a"),
            ("fast", Work::Beside, "echo b >&2"),
            ("last", Work::Run, "true"),
        ]);
        let expected =
            ["== alone", "== 2 steps side by side, 2 at a time", "== slow", "a", "== fast", "b", "== last"];
        assert_eq!((told, outcome), (expected.map(str::to_owned).to_vec(), Ok(())));
    }

    #[test]
    fn a_step_that_fails_beside_others_fails_the_whole_by_its_name() {
        let (told, outcome) = run_of(&[
            ("slow", Work::Beside, "sleep 0.3"),
            ("bad", Work::Beside, "echo why; exit 3"),
            ("last", Work::Run, "true"),
        ]);
        assert_eq!(told, ["== 2 steps side by side, 2 at a time", "== slow", "== bad", "why"]);
        let error = outcome.unwrap_err();
        assert!(error.starts_with("bad failed: ") && error.contains("to repeat it:\n  sh -c"), "{error}");
    }

    #[test]
    fn a_model_outside_the_table_is_an_error() {
        let error = loom_models(&tree(&["crates/pebble-new/tests/loom.rs"])).unwrap_err();
        assert!(error.contains("pebble-new is not in LOOM_CRATES"), "{error}");
        assert!(loom_models(&tree(&["crates/pebble-wal/tests/all.rs"])).unwrap().is_empty());
    }

    #[test]
    fn both_forms_of_an_example_are_found() {
        let files = tree(&[
            "crates/a/examples/one.rs",
            "crates/a/examples/two/main.rs",
            "crates/a/examples/two/helper.rs",
            "crates/a/examples/data.txt",
            "crates/a/src/examples/three.rs",
        ]);
        assert_eq!(examples(&files), [("a", "one"), ("a", "two")]);
    }

    #[test]
    fn a_step_left_out_says_why() {
        let present = tree(&["fuzz/Cargo.toml"]);
        let cases = [
            (tree(&[]), EVERYTHING, "no fuzz directory"),
            (present.clone(), Toolchain { nightly: false, ..EVERYTHING }, "no nightly"),
            (present, Toolchain { cxx: false, ..EVERYTHING }, "no C++"),
        ];
        for (files, toolchain, reason) in cases {
            let last = told(&steps(&files, toolchain).unwrap()).pop().unwrap();
            assert!(last.starts_with("skip: ") && last.contains(reason), "{last}");
        }
    }
}
