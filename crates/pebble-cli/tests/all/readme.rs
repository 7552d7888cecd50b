//! The session in the README is true.

use std::path::Path;
use std::process::Command;

use crate::support::Bed;

const README: &str = include_str!("../../README.md");

#[test]
fn the_session_in_the_readme_is_true() {
    let session = README.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_pebble")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let bed = Bed::new();
    let mut steps = session.split("$ pebble ").map(|step| format!("pebble {step}"));
    assert_eq!(steps.next().unwrap(), "pebble ");
    let mut ran = 0;
    for step in steps {
        let (commands, output) = step.split_once('\n').unwrap();
        let (output, setup) = output.split_once("$ ").map_or((output, ""), |(output, setup)| (output, setup));
        let shell = |line: &str| {
            let mut command = Command::new("sh");
            let run =
                command.args(["-c", line]).env("PATH", &path).current_dir(bed.path("")).output().unwrap();
            String::from_utf8(run.stdout).unwrap()
        };
        assert_eq!(shell(commands), output, "{commands}");
        shell(setup);
        ran += 1;
    }
    assert!(ran > 10);
}
