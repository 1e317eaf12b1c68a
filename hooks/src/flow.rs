//! A flow: a table of named steps, run in order.
//!
//! Each step first checks whether there is something to do, and then acts. Checks change nothing, so a dry run performs
//! only the checks. A check examines the actual state of the node rather than records of earlier runs, so every step
//! can be repeated: a flow that was interrupted anywhere is completed by running it again.
//!
//! ```
//! use kbrecover_hooks::flow::{Decision, Run, Step, StepState, UNWATCHED, run};
//!
//! let steps = [Step::new(
//!     "double",
//!     |number: &mut u32| {
//!         Ok(match *number {
//!             0..10 => Decision::Act(format!("double {number}")),
//!             _ => Decision::Skip("it is large enough".to_owned()),
//!         })
//!     },
//!     |number: &mut u32| {
//!         *number *= 2;
//!         Ok(format!("it is {number} now"))
//!     },
//! )];
//! let mut number = 8;
//! let mut run = |how| run(&steps, &mut number, how, UNWATCHED, &mut |_, _| {}, &mut |_| {}).end();
//! assert_eq!(run(Run::Dry), StepState::Would);
//! assert_eq!(run(Run::Real), StepState::Done);
//! assert_eq!(run(Run::Real), StepState::Skipped);
//! assert_eq!(number, 16);
//! ```

use std::time::{Duration, Instant};

use kbrecover_rewind::with_causes;

/// One step of a flow with the context `C`.
#[non_exhaustive]
pub struct Step<C> {
    /// A short name, the same in every run.
    pub name: &'static str,
    /// Decides what is to be done. Changes nothing except the context.
    pub check: fn(&mut C) -> Result<Decision, StepError>,
    /// Does it and returns a message about the result. Called only after [`Decision::Act`].
    pub act: fn(&mut C) -> Result<String, StepError>,
}

impl<C> Step<C> {
    /// A step of this name.
    pub const fn new(
        name: &'static str,
        check: fn(&mut C) -> Result<Decision, StepError>,
        act: fn(&mut C) -> Result<String, StepError>,
    ) -> Step<C> {
        Step { name, check, act }
    }
}

/// The result of a check. The text of each variant is for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// What was to be checked is as it must be, and nothing has to be done; the flow continues.
    Pass(String),
    /// There is nothing to do for this step, for this reason; the flow continues.
    Skip(String),
    /// This has to be done.
    Act(String),
    /// The flow ends here successfully.
    Finish(String),
    /// The flow must not continue. This step has changed nothing.
    Refuse(String),
}

/// The failure of a step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{message}")]
pub struct StepError {
    /// What failed, on what, and why.
    pub message: String,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl StepError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> StepError {
        StepError { message: message.into(), hint: None }
    }

    /// The same error with a hint.
    pub fn hint(self, hint: impl Into<String>) -> StepError {
        StepError { hint: Some(hint.into()), ..self }
    }

    /// An error with the text of another one and of all its sources.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> StepError {
        StepError::new(with_causes(error))
    }
}

/// A moment of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Moment {
    /// The action is about to begin.
    Begin,
    /// The action has succeeded.
    Done,
}

impl Moment {
    /// One word in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Moment::Begin => "begin",
            Moment::Done => "done",
        }
    }
}

/// Called at the beginning and the end of each action, with the name of its step.
pub type Watch<'a> = &'a dyn Fn(&'static str, Moment);

/// Does nothing.
pub const UNWATCHED: Watch<'static> = &|_, _| {};

/// Whether a flow acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Run {
    /// Check and act.
    Real,
    /// Only check: a dry run.
    Dry,
}

/// The result of one step.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StepResult {
    /// The name of the step.
    pub name: &'static str,
    /// Its outcome.
    pub state: StepState,
    /// A message about it; may be empty.
    pub text: String,
    /// The time it took.
    pub elapsed: Duration,
}

/// The outcome of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StepState {
    /// What was to be checked is as it must be.
    Passed,
    /// There was nothing to do.
    Skipped,
    /// Its action was done.
    Done,
    /// In a dry run: its action would be done.
    Would,
    /// It ended the flow successfully.
    Finished,
    /// It ended the flow because the flow must not continue.
    Refused,
    /// It failed.
    Failed,
}

impl StepState {
    /// One word in lower case, for reports.
    pub fn name(self) -> &'static str {
        match self {
            StepState::Passed => "ok",
            StepState::Skipped => "skipped",
            StepState::Done => "done",
            StepState::Would => "would",
            StepState::Finished => "finished",
            StepState::Refused => "refused",
            StepState::Failed => "failed",
        }
    }
}

/// The result of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FlowReport {
    /// The steps that were run, in order.
    pub steps: Vec<StepResult>,
    /// The hint of the step that failed.
    pub hint: Option<String>,
}

impl FlowReport {
    /// The outcome of the flow, which is that of its last step.
    pub fn end(&self) -> StepState {
        self.steps.last().map_or(StepState::Skipped, |step| step.state)
    }

    /// Whether the flow neither failed nor was refused.
    pub fn is_success(&self) -> bool {
        !matches!(self.end(), StepState::Refused | StepState::Failed)
    }
}

/// Runs the steps in order until one of them ends the flow. `begun` is called before each action with the name of the
/// step and what it is going to do, `ended` after each step.
pub fn run<C>(
    steps: &[Step<C>],
    context: &mut C,
    run: Run,
    watch: Watch<'_>,
    begun: &mut dyn FnMut(&'static str, &str),
    ended: &mut dyn FnMut(&StepResult),
) -> FlowReport {
    let mut report = FlowReport { steps: Vec::new(), hint: None };
    for step in steps {
        let since = Instant::now();
        let (state, text, hint) = match (step.check)(context) {
            Ok(Decision::Pass(what)) => (StepState::Passed, what, None),
            Ok(Decision::Skip(why)) => (StepState::Skipped, why, None),
            Ok(Decision::Finish(why)) => (StepState::Finished, why, None),
            Ok(Decision::Refuse(why)) => (StepState::Refused, why, None),
            Ok(Decision::Act(what)) if run == Run::Dry => (StepState::Would, what, None),
            Ok(Decision::Act(what)) => {
                begun(step.name, &what);
                watch(step.name, Moment::Begin);
                match (step.act)(context) {
                    Ok(done) => {
                        watch(step.name, Moment::Done);
                        (StepState::Done, done, None)
                    }
                    Err(error) => (StepState::Failed, error.message, error.hint),
                }
            }
            Err(error) => (StepState::Failed, error.message, error.hint),
        };
        let result = StepResult { name: step.name, state, text, elapsed: since.elapsed() };
        ended(&result);
        report.steps.push(result);
        report.hint = hint;
        if matches!(state, StepState::Finished | StepState::Refused | StepState::Failed) {
            break;
        }
    }
    report
}

/// The action of a step that only checks.
pub fn no_action<C>(_: &mut C) -> Result<String, StepError> {
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Trace = Vec<String>;

    const STEPS: &[Step<Trace>] = &[
        Step { name: "first", check: |_| Ok(Decision::Pass("fine".into())), act: no_action },
        Step {
            name: "second",
            check: |trace| {
                Ok(if trace.contains(&"done".to_owned()) {
                    Decision::Skip("is done".into())
                } else {
                    Decision::Act("do it".into())
                })
            },
            act: |trace| {
                trace.push("done".into());
                Ok("did it".into())
            },
        },
        Step {
            name: "third",
            check: |trace| {
                if trace.len() > 5 {
                    Err(StepError::new("full").hint("empty it"))
                } else {
                    Ok(Decision::Finish("well".into()))
                }
            },
            act: no_action,
        },
        Step { name: "never", check: |_| unreachable!(), act: no_action },
    ];

    fn states(trace: &mut Trace, how: Run) -> (Vec<StepState>, FlowReport) {
        let report = run(STEPS, trace, how, &|_, _| {}, &mut |_, _| {}, &mut |_| {});
        (report.steps.iter().map(|step| step.state).collect(), report)
    }

    #[test]
    fn a_dry_run_only_checks_and_a_second_run_skips_what_is_done() {
        use StepState::{Done, Failed, Finished, Passed, Skipped, Would};
        let mut trace = Trace::new();
        assert_eq!(states(&mut trace, Run::Dry).0, [Passed, Would, Finished]);
        assert!(trace.is_empty());
        assert_eq!(states(&mut trace, Run::Real).0, [Passed, Done, Finished]);
        let (again, report) = states(&mut trace, Run::Real);
        assert_eq!(again, [Passed, Skipped, Finished]);
        assert!(report.is_success());
        trace.extend(["x"; 5].map(str::to_owned));
        let (full, report) = states(&mut trace, Run::Real);
        assert_eq!(full, [Passed, Skipped, Failed]);
        assert_eq!((report.is_success(), report.hint.as_deref()), (false, Some("empty it")));
    }
}
