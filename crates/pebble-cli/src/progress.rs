//! A bar on stderr: on a terminal only, without colours, gone when the work is done.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far the work is. Cheap to clone, shared by the clones.
#[derive(Clone)]
pub struct Progress(ProgressBar);

/// What is counted.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Records or files.
    Items,
    /// Bytes of a file.
    Bytes,
}

impl Progress {
    /// A bar towards `total`, or where that is unknown a count.
    pub fn new(what: &'static str, total: Option<u64>, unit: Unit) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let template = match (total.is_some(), unit) {
            (true, Unit::Items) => "{msg:10} [{bar:40}] {human_pos}/{human_len} {per_sec} {eta}",
            (true, Unit::Bytes) => "{msg:10} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (false, Unit::Items) => "{msg:10} {spinner} {human_pos} {per_sec}",
            (false, Unit::Bytes) => "{msg:10} {spinner} {bytes} {bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, target).with_style(style.progress_chars("=> "));
        Self(bar.with_message(what))
    }

    /// Now at `position`.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    /// `n` further.
    pub fn advance(&self, n: u64) {
        self.0.inc(n);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
