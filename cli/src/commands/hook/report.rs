//! The report on a flow: JSON for programs, and text after a dry run.

use kbrecover_hooks::flow::{FlowReport, StepResult, StepState};
use serde::Serialize;

#[derive(Serialize)]
struct Report<'a> {
    success: bool,
    end: &'static str,
    steps: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct Step<'a> {
    name: &'static str,
    state: &'static str,
    text: &'a str,
    seconds: f64,
}

/// The report as one JSON object and a newline.
pub(super) fn json(report: &FlowReport) -> String {
    let steps = report.steps.iter().map(|step| Step {
        name: step.name,
        state: step.state.name(),
        text: &step.text,
        seconds: step.elapsed.as_secs_f64(),
    });
    let report = Report {
        success: report.is_success(),
        end: report.end().name(),
        steps: steps.collect(),
        hint: report.hint.as_deref(),
    };
    // Serializing plain strings and numbers cannot fail.
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}

/// The steps of a dry run, one per line.
pub(super) fn text(report: &FlowReport) -> String {
    let line = |step: &StepResult| {
        let text = match step.state {
            StepState::Skipped if step.text.is_empty() => "nothing to do",
            _ => &step.text,
        };
        let text = text.replace('\n', &format!("\n{:33}", ""));
        format!("{:<22} {:<9} {text}", step.name, step.state.name()).trim_end().to_owned() + "\n"
    };
    report.steps.iter().map(line).collect()
}
