//! Several jobs at a time, told one after the other.
//!
//! ```text
//!     jobs ──► workers, each takes the next job ──► what it left, as it ends ──► told in the order of the jobs
//! ```
//!
//! What is told does not depend on who was faster. After a failure no job is begun any more; those that run end, since
//! one of them may stand before it. Threads: the workers', and the caller's, which tells.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

/// What a job left.
pub struct Done {
    pub outcome: Result<(), String>,
    /// What it wrote.
    pub output: String,
    pub took: Duration,
}

/// Does `work` for each of the jobs and calls `tell` in their order, up to the first that failed, whose error it
/// returns.
pub fn in_order<J: Sync>(
    workers: usize,
    jobs: &[J],
    work: impl Fn(&J) -> Done + Sync,
    mut tell: impl FnMut(&J, &Done),
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let (sender, ends) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let done = work(job);
                    if done.outcome.is_err() {
                        next.store(jobs.len(), Relaxed);
                    }
                    // Nobody listens any more when an earlier job has failed.
                    _ = sender.send((index, done));
                }
            });
        }
        drop(sender);
        let mut waiting: Vec<Option<Done>> = jobs.iter().map(|_| None).collect();
        let mut told = 0;
        for (index, done) in ends {
            waiting[index] = Some(done);
            while let Some(done) = waiting.get_mut(told).and_then(Option::take) {
                tell(&jobs[told], &done);
                done.outcome?;
                told += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    fn done(outcome: Result<(), String>) -> Done {
        Done { outcome, output: String::new(), took: Duration::ZERO }
    }

    /// Runs jobs, some of which wait until another has ended, and returns what was told.
    fn run(workers: usize, jobs: &[(&str, Option<&str>, bool)]) -> (Vec<String>, Result<(), String>) {
        let (ended, bell) = (Mutex::new(Vec::new()), Condvar::new());
        let work = |job: &(&str, Option<&str>, bool)| {
            let (name, behind, fails) = *job;
            let mut ended = ended.lock().unwrap();
            while behind.is_some_and(|other| !ended.iter().any(|name: &String| name == other)) {
                ended = bell.wait(ended).unwrap();
            }
            ended.push(name.to_owned());
            bell.notify_all();
            done(if fails { Err(format!("{name} failed")) } else { Ok(()) })
        };
        let mut told = Vec::new();
        let outcome = in_order(workers, jobs, work, |(name, ..), _| told.push((*name).to_owned()));
        (told, outcome)
    }

    #[test]
    fn jobs_are_told_in_their_order_whoever_ends_first() {
        let (told, outcome) =
            run(2, &[("slow", Some("c"), false), ("a", None, false), ("b", None, false), ("c", None, false)]);
        assert_eq!((told.join(" "), outcome), ("slow a b c".to_owned(), Ok(())));
    }

    #[test]
    fn a_failure_is_told_in_its_place_and_nothing_is_begun_behind_it() {
        let jobs = [("slow", Some("bad"), false), ("bad", None, true), ("never", None, false)];
        let (told, outcome) = run(2, &jobs);
        assert_eq!((told.join(" "), outcome), ("slow bad".to_owned(), Err("bad failed".to_owned())));
        let (told, outcome) = run(1, &jobs[1..]);
        assert_eq!((told.join(" "), outcome), ("bad".to_owned(), Err("bad failed".to_owned())));
    }

    #[test]
    fn of_two_failures_the_first_in_the_order_counts() {
        let (told, outcome) = run(2, &[("first", Some("second"), true), ("second", None, true)]);
        assert_eq!((told.join(" "), outcome), ("first".to_owned(), Err("first failed".to_owned())));
    }

    #[test]
    fn no_workers_are_one() {
        assert_eq!(run(0, &[("a", None, false)]).0, ["a"]);
        assert_eq!(run(8, &[]), (Vec::new(), Ok(())));
    }
}
