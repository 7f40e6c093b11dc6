//! Bars for what may take longer than a second, drawn on standard error if it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Out;

/// A bar or spinner that disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Something with a known number of steps.
    pub(crate) fn of(out: Out, total: u64, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:30} {human_pos}/{human_len} {per_sec} {eta}")
            .expect("the template is well-formed");
        Self { bar: drawn(out, ProgressBar::new(total).with_style(style).with_message(what)) }
    }

    /// Something counted whose end is not known.
    pub(crate) fn count(out: Out, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {human_pos} {msg} {per_sec}")
            .expect("the template is well-formed");
        Self { bar: drawn(out, ProgressBar::new_spinner().with_style(style).with_message(what)) }
    }

    /// Something whose end is not known.
    pub(crate) fn spinner(out: Out, what: impl Into<String>) -> Self {
        let bar = drawn(out, ProgressBar::new_spinner().with_message(what.into()));
        if out.may_draw() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// So many steps more are done.
    pub(crate) fn advance(&self, steps: u64) {
        self.bar.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn drawn(out: Out, bar: ProgressBar) -> ProgressBar {
    if !out.may_draw() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

const TICK: Duration = Duration::from_millis(100);
