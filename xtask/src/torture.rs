//! `cargo xtask torture [minutes]`: the long versions of the campaign, with seeds that were never used before.
//!
//! Every round takes the next seeds: random operations on all layouts, crashes of random scripts, kills of the real
//! program. A round that fails ends it, with the command that repeats the round; the test itself names the one seed.
//! The clock is looked at between rounds only. One thread; the tests use all cores.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::process::Command;

/// So long, when nobody says how long.
const MINUTES: u64 = 60;

/// Seeds that a round takes of each kind, so that the next one's are new.
const STEP: u64 = 1_000;

/// What a round runs: the test, and its variables beside the seed.
const PARTS: &[(&str, &[(&str, &str)])] = &[
    ("model::any_operations_on_every_layout", &[("PEBBLE_SEEDS", "200"), ("PEBBLE_OPS", "3000")]),
    ("model::any_operations_beside_threads_that_merge", &[("PEBBLE_SEEDS", "20"), ("PEBBLE_OPS", "2000")]),
    ("crash::random_scripts", &[("PEBBLE_CRASH_SEEDS", "40")]),
    ("kill::nothing_acknowledged_is_lost", &[("PEBBLE_KILLS", "500")]),
];

/// Goes on for about so long. `minutes` as it was typed.
pub fn run(root: &Path, minutes: Option<&str>) -> Result<(), String> {
    let minutes = match minutes {
        Some(text) => text.parse().map_err(|_| format!("{text} is no number of minutes"))?,
        None => MINUTES,
    };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let (begun, most) = (Instant::now(), Duration::from_secs(minutes * 60));
    // A second never comes twice, and a round takes longer than one.
    let first = since_epoch.as_secs() % 1_000_000 * STEP;
    for round in 0.. {
        let seed = first + round * STEP;
        for command in commands(seed) {
            println!("== round {round}, {:.0} min: {command}", begun.elapsed().as_secs_f64() / 60.0);
            command.run(root)?;
        }
        if begun.elapsed() >= most {
            println!("== {} rounds without a failure, the last from seed {seed} on", round + 1);
            break;
        }
    }
    Ok(())
}

fn commands(seed: u64) -> Vec<Command> {
    let command = |(test, variables): &(&str, &[(&str, &str)])| {
        let arguments = ["test", "--release", "--locked", "--quiet", "-p", "pebble-db", "--test", "all"];
        let run = Command::cargo(&[&arguments[..], &[*test, "--", "--nocapture"]].concat());
        variables.iter().fold(run.with_env("PEBBLE_SEED", &seed.to_string()), |run, (name, value)| {
            run.with_env(name, value)
        })
    };
    PARTS.iter().map(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_can_be_repeated_from_what_it_prints() {
        let told: Vec<String> = commands(7_000).iter().map(Command::to_string).collect();
        assert_eq!(told.len(), PARTS.len());
        assert!(told.iter().all(|line| line.starts_with("PEBBLE_SEED=\"7000\" PEBBLE_")), "{told:?}");
        assert!(told[2].ends_with("--test all crash::random_scripts -- --nocapture"), "{told:?}");
    }

    #[test]
    fn minutes_are_a_number() {
        assert!(run(Path::new("."), Some("soon")).unwrap_err().contains("soon is no number"));
    }
}
