//! `mezz explain`.

use std::fmt::Write;

use clap::{Args, Subcommand};
use mezz_proto::mezz::v1::{
    ExplainRequest, ExplainResponse, TaskSubject, explain_request::Subject,
};
use serde::Serialize;

use crate::{
    client::{ClientArgs, plain},
    commands::{task::TaskSelector, tasks::framework_id},
    output::{self, Format, OutputArgs},
};

/// Tell why something has no (more) offers, from the allocator's own reasons.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// What to explain.
    #[command(subcommand)]
    subject: ExplainSubject,
}

#[derive(Debug, Subcommand)]
enum ExplainSubject {
    /// Why a framework has no more offers
    Framework(FrameworkSubject),
    /// Why a task is in its state
    Task(TaskSubjectArgs),
    /// Why frameworks of a role have no more offers
    Role(RoleSubject),
}

#[derive(Debug, Args)]
struct FrameworkSubject {
    /// The framework's id; an end or a beginning of it is enough
    #[arg(value_name = "FRAMEWORK")]
    framework: String,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct TaskSubjectArgs {
    #[command(flatten)]
    task: TaskSelector,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct RoleSubject {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An explanation's JSON form.
#[derive(Serialize)]
struct Explanation<'a> {
    summary: &'a str,
    reasons: Vec<ReasonRow<'a>>,
    hints: &'a [String],
}

#[derive(Serialize)]
struct ReasonRow<'a> {
    code: &'a str,
    count: u64,
    text: &'a str,
    examples: &'a [String],
}

/// The explanation as text: a sentence, its reasons, and what would change it.
pub fn render(answer: &ExplainResponse, wide: bool) -> String {
    let mut text = format!("{}\n", answer.summary);
    for reason in &answer.reasons {
        // Writing to a String cannot fail.
        let _ = write!(text, "  - {}", reason.text);
        if wide && !reason.examples.is_empty() {
            let _ = write!(text, " ({}; {})", reason.code, reason.examples.join(", "));
        }
        text.push('\n');
    }
    if !answer.hints.is_empty() {
        text.push_str("What would change it:\n");
        for hint in &answer.hints {
            let _ = writeln!(text, "  - {hint}");
        }
    }
    text
}

fn json(answer: &ExplainResponse) -> Explanation<'_> {
    Explanation {
        summary: &answer.summary,
        reasons: answer
            .reasons
            .iter()
            .map(|r| ReasonRow {
                code: &r.code,
                count: r.count,
                text: &r.text,
                examples: &r.examples,
            })
            .collect(),
        hints: &answer.hints,
    }
}

/// Prints an explanation.
///
/// # Errors
/// When the subject cannot be found or the master cannot be asked.
pub async fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let (client, format) = match &args.subject {
        ExplainSubject::Framework(s) => (&s.client, s.output.output),
        ExplainSubject::Task(s) => (&s.client, s.output.output),
        ExplainSubject::Role(s) => (&s.client, s.output.output),
    };
    let mut operator = client.operator().await?;
    let subject = match &args.subject {
        ExplainSubject::Framework(s) => {
            Subject::FrameworkId(framework_id(&mut operator, &s.framework).await?)
        }
        ExplainSubject::Task(s) => {
            let task = s.task.find(&mut operator, true).await?.task;
            Subject::Task(TaskSubject {
                task_id: task.task_id.value,
                framework_id: Some(task.framework_id.value),
            })
        }
        ExplainSubject::Role(s) => Subject::Role(s.role.clone()),
    };
    let request = ExplainRequest { subject: Some(subject) };
    let answer = operator.explain(request).await.map_err(|s| plain(&s))?.into_inner();
    match format {
        Format::Json => output::print_json(&json(&answer))?,
        format => output::write(&render(&answer, format == Format::Wide))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mezz_proto::mezz::v1::Reason;

    use super::*;

    fn answer() -> ExplainResponse {
        ExplainResponse {
            summary: "Framework spark has no offers.".to_owned(),
            reasons: vec![Reason {
                code: "filtered".to_owned(),
                count: 2,
                text: "2 agents: filtered until 08:15:04".to_owned(),
                examples: vec!["m-S0".to_owned(), "m-S1".to_owned()],
            }],
            hints: vec!["Revive the framework.".to_owned()],
        }
    }

    #[test]
    fn for_people() {
        assert_eq!(
            render(&answer(), false),
            "Framework spark has no offers.\n  - 2 agents: filtered until 08:15:04\n\
             What would change it:\n  - Revive the framework.\n"
        );
        assert!(render(&answer(), true).contains("08:15:04 (filtered; m-S0, m-S1)\n"));
        let bare = ExplainResponse { summary: "Fine.".to_owned(), ..Default::default() };
        assert_eq!(render(&bare, false), "Fine.\n");
    }

    #[test]
    fn for_programs() {
        assert_eq!(
            serde_json::to_value(json(&answer())).unwrap(),
            serde_json::json!({
                "summary": "Framework spark has no offers.",
                "reasons": [{"code": "filtered", "count": 2,
                    "text": "2 agents: filtered until 08:15:04", "examples": ["m-S0", "m-S1"]}],
                "hints": ["Revive the framework."]
            })
        );
    }
}
