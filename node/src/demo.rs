//! `demo`: the whole first story on one machine, with the real programs. A coordinator and two nodes
//! run as processes of their own in a temporary directory; every step is done by the command a
//! person would type, and checked at the other end.

mod cast;
mod story;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::DemoArgs;
use crate::commands::{Caller, DONE, Ended};
use crate::failure::{Failure, Kind, SCHEMA_VERSION};
use crate::render::Out;
use cast::Stage;

/// A step that was done.
#[derive(Debug, Serialize)]
struct StepShape<'a> {
    schema_version: u32,
    step: &'a str,
    ok: bool,
    path: Option<&'a str>,
    elapsed_ms: u64,
    text: &'a str,
}

/// The end of a demo that went well.
#[derive(Debug, Serialize)]
struct DoneShape {
    schema_version: u32,
    done: bool,
    steps: u32,
    elapsed_ms: u64,
    kept: Option<String>,
}

pub(crate) async fn demo(caller: &Caller, args: &DemoArgs) -> Ended {
    let mut stage = Stage::build()?;
    let mut narrator = Narrator::new(caller.out);
    let told = tokio::select! {
        told = story::tell(&mut stage, &mut narrator) => told,
        () = tokio::time::sleep(STORY_TIMEOUT) => {
            let text = format!("the demo did not end within {} s", STORY_TIMEOUT.as_secs());
            Err(Failure::new(Kind::TimedOut, "demo-timeout", text))
        }
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Err(Failure::new(Kind::Failed, INTERRUPTED, "interrupted; everything is cleaned up")),
            Err(error) => Err(Failure::failed("signal", &error)),
        },
    };
    let place = stage.place();
    match told {
        Ok(()) => {}
        Err(failure) if failure.code == INTERRUPTED => {
            stage.strike(args.keep).await?;
            return Err(failure);
        }
        Err(failure) => {
            let logs = stage.last_words();
            // Kept for a look: a failed demo is a question.
            stage.strike(true).await?;
            for line in logs {
                caller.out.note(line);
            }
            let text = format!("step {:?} failed: {}", narrator.step, failure.text);
            let next = format!("look into {place}, then rm -r it; peerloom doctor");
            return Err(Failure { text, ..failure }.next(next));
        }
    }
    stage.strike(args.keep).await?;
    let elapsed_ms = millis(narrator.began.elapsed());
    let kept = args.keep.then_some(place);
    let done =
        DoneShape { schema_version: SCHEMA_VERSION, done: true, steps: narrator.steps, elapsed_ms, kept };
    caller.out.both(&done, || {
        let mut lines =
            vec![format!("all {} steps done in {:.1} s", done.steps, narrator.began.elapsed().as_secs_f64())];
        lines.extend(done.kept.iter().map(|kept| format!("everything is kept in {kept}")));
        lines
    })?;
    caller.out.next("peerloom up --new acme --name laptop --detach");
    Ok(DONE)
}

/// Says each step when it is done, with the path it took.
struct Narrator {
    out: Out,
    began: Instant,
    step_began: Instant,
    step: &'static str,
    steps: u32,
}

impl Narrator {
    #[expect(
        clippy::disallowed_methods,
        reason = "people are told how long a step took; nothing depends on it"
    )]
    fn new(out: Out) -> Self {
        let began = Instant::now();
        Self { out, began, step_began: began, step: "begin", steps: 0 }
    }

    /// The step that follows; named so that a failure can say where it happened.
    #[expect(
        clippy::disallowed_methods,
        reason = "people are told how long a step took; nothing depends on it"
    )]
    fn begin(&mut self, step: &'static str) {
        self.step = step;
        self.step_began = Instant::now();
    }

    /// The step is done.
    fn done(&mut self, path: Option<&str>, text: &str) -> Result<(), Failure> {
        self.steps += 1;
        let elapsed_ms = millis(self.step_began.elapsed());
        let shape =
            StepShape { schema_version: SCHEMA_VERSION, step: self.step, ok: true, path, elapsed_ms, text };
        let way = path.map(|path| format!("  [{path}]")).unwrap_or_default();
        self.out.both(&shape, || {
            vec![format!("{:>2}. {:<12} {text}{way}  {elapsed_ms} ms", self.steps, self.step)]
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Code of the failure that a person asked for.
const INTERRUPTED: &str = "interrupted";
/// Twice what it is promised to take.
const STORY_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_stable_shape() {
        let step = StepShape {
            schema_version: 1,
            step: "first",
            ok: true,
            path: Some("relay"),
            elapsed_ms: 41,
            text: "stored at build",
        };
        assert_eq!(
            serde_json::to_string(&step).unwrap(),
            r#"{"schema_version":1,"step":"first","ok":true,"path":"relay","elapsed_ms":41,"text":"stored at build"}"#
        );
    }
}
