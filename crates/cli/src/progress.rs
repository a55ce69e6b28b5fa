//! How far it got, for a person at a terminal.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A bar on stderr; nothing where stderr is no terminal or somebody else reads the output.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar over `n` items.
    pub(crate) fn of(output: &Output, n: usize, noun: &'static str) -> Self {
        let template = "{bar:30} {human_pos} of {human_len} {prefix}, {per_sec}, {eta} left {msg}";
        Self::with(output, n, noun, template)
    }

    /// A bar over `n` items that each take long, so that the time of the one at work counts.
    pub(crate) fn of_long(output: &Output, n: usize, noun: &'static str) -> Self {
        let template = "{bar:30} {human_pos} of {human_len} {prefix}, {elapsed}; {wide_msg}";
        Self::with(output, n, noun, template)
    }

    fn with(output: &Output, n: usize, noun: &'static str, template: &str) -> Self {
        let target = if output.shows_progress() {
            // Draws nothing where stderr is no terminal.
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(n as u64), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(noun);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub(crate) fn advance(&self, n: usize) {
        self.0.inc(n as u64);
    }

    /// Says what is at work.
    pub(crate) fn say(&self, what: impl Into<Cow<'static, str>>) {
        self.0.set_message(what);
    }

    /// Prints something while the bar is away.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Whether nobody sees the bar.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
