//! A flow: a table of named steps, run in their order.
//!
//! Each step first looks and then, if there is something to do, does it. Looking changes nothing, so a dry
//! run is the same table with only the looks. A step looks at the world and not at what earlier runs noted,
//! so it can be repeated: a flow that was interrupted anywhere is simply run again.

use std::time::{Duration, Instant};

mod guard;

pub use guard::{Guard, GuardError, Interrupted};

/// One step of a flow over the context `C`.
pub struct Step<C> {
    /// A few words, the same in every run.
    pub name: &'static str,
    /// What is to be done now. Changes nothing but the context.
    pub look: fn(&mut C) -> Result<Decision, StepError>,
    /// Does it, and says what was done; called only after [`Decision::Act`].
    pub act: fn(&mut C) -> Result<String, StepError>,
}

/// What a step came to by looking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing is to be done here, for this reason; the flow goes on.
    Skip(String),
    /// This is to be done.
    Act(String),
    /// The flow ends here, and all is well.
    Finish(String),
    /// The flow ends here because it must not go on; nothing has been changed by this step.
    Refuse(String),
}

/// A step that failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
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

    /// The same with a hint.
    pub fn hint(self, hint: impl Into<String>) -> StepError {
        StepError { hint: Some(hint.into()), ..self }
    }

    /// The text of an error with all its sources.
    pub fn of(error: &dyn std::error::Error) -> StepError {
        StepError::new(crate::chain(error))
    }
}

/// A moment of an action, for whoever watches the flow from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// It is about to begin.
    Begin,
    /// It has been done.
    Done,
}

/// Hears of each action of a flow, by the name of its step.
pub type Watch<'a> = &'a dyn Fn(&'static str, Moment);

/// Whether anything is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// Look and act.
    Real,
    /// Only look.
    Dry,
}

/// How one step went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepResult {
    /// Its name.
    pub name: &'static str,
    /// What it came to.
    pub state: StepState,
    /// The words for it.
    pub text: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepState {
    /// There was nothing to do.
    Skipped,
    /// It was done.
    Done,
    /// A dry run: it would be done.
    Would,
    /// It ended the flow well.
    Finished,
    /// It ended the flow because going on is not allowed.
    Refused,
    /// It failed.
    Failed,
}

impl StepState {
    /// One lower-case word for reports.
    pub fn name(self) -> &'static str {
        match self {
            StepState::Skipped => "skipped",
            StepState::Done => "done",
            StepState::Would => "would",
            StepState::Finished => "finished",
            StepState::Refused => "refused",
            StepState::Failed => "failed",
        }
    }
}

/// How a flow went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowReport {
    /// The steps that were come to, in order.
    pub steps: Vec<StepResult>,
    /// The failure's hint.
    pub hint: Option<String>,
}

impl FlowReport {
    /// The end of the flow: the state of its last step.
    pub fn end(&self) -> StepState {
        self.steps.last().map_or(StepState::Skipped, |step| step.state)
    }

    /// Whether it ended well.
    pub fn is_success(&self) -> bool {
        !matches!(self.end(), StepState::Refused | StepState::Failed)
    }
}

/// Runs the steps in their order until one ends the flow. `tell` hears of each when it is over, `begun` of
/// each action before it begins.
pub fn run<C>(
    steps: &[Step<C>],
    context: &mut C,
    run: Run,
    watch: Watch<'_>,
    begun: &mut dyn FnMut(&'static str, &str),
    tell: &mut dyn FnMut(&StepResult),
) -> FlowReport {
    let mut report = FlowReport { steps: Vec::new(), hint: None };
    for step in steps {
        let since = Instant::now();
        let (state, text, hint) = match (step.look)(context) {
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
        tell(&result);
        report.steps.push(result);
        report.hint = hint;
        if matches!(state, StepState::Finished | StepState::Refused | StepState::Failed) {
            break;
        }
    }
    report
}

/// The action of a step that only looks.
pub fn nothing<C>(_: &mut C) -> Result<String, StepError> {
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Trace = Vec<String>;

    const STEPS: &[Step<Trace>] = &[
        Step { name: "first", look: |_| Ok(Decision::Skip("fine".into())), act: nothing },
        Step {
            name: "second",
            look: |trace| {
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
            look: |trace| {
                if trace.len() > 5 {
                    Err(StepError::new("full").hint("empty it"))
                } else {
                    Ok(Decision::Finish("well".into()))
                }
            },
            act: nothing,
        },
        Step { name: "never", look: |_| unreachable!(), act: nothing },
    ];

    fn states(trace: &mut Trace, how: Run) -> (Vec<StepState>, FlowReport) {
        let report = run(STEPS, trace, how, &|_, _| {}, &mut |_, _| {}, &mut |_| {});
        (report.steps.iter().map(|step| step.state).collect(), report)
    }

    #[test]
    fn a_dry_run_only_looks_and_a_second_run_finds_it_done() {
        use StepState::{Done, Failed, Finished, Skipped, Would};
        let mut trace = Trace::new();
        assert_eq!(states(&mut trace, Run::Dry).0, [Skipped, Would, Finished]);
        assert!(trace.is_empty());
        assert_eq!(states(&mut trace, Run::Real).0, [Skipped, Done, Finished]);
        let (again, report) = states(&mut trace, Run::Real);
        assert_eq!(again, [Skipped, Skipped, Finished]);
        assert!(report.is_success());
        trace.extend(["x"; 5].map(str::to_owned));
        let (full, report) = states(&mut trace, Run::Real);
        assert_eq!(full, [Skipped, Skipped, Failed]);
        assert_eq!((report.is_success(), report.hint.as_deref()), (false, Some("empty it")));
    }
}
