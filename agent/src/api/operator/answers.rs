//! What the operator API answers, made of the read models.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use mezz_proto::{
    json::to_value,
    time::Time,
    v1::{
        self,
        agent::{Response, response},
    },
};
use serde_json::Value;

use super::super::{
    Served,
    pages::file_refusal,
    refusal::Refusal,
    roster::{Executor, Framework, Frameworks},
    sandboxes::{self, Names, resolve},
};

pub(super) fn no_file() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "")
}

fn agent_info(served: &Served) -> v1::AgentInfo {
    let about = &served.about;
    v1::AgentInfo {
        hostname: about.hostname.clone(),
        port: Some(about.port.into()),
        resources: about.resources.to_proto(mezz_proto::resources::Dialect::Refined, None),
        attributes: about.attributes.clone(),
        id: served.index.agent_id().map(Into::into),
        domain: about.domain.clone(),
    }
}

pub(super) fn get_agent(served: &Served) -> response::GetAgent {
    let drain = served.index.drain();
    let start = drain.map(|(_, secs)| Time::from_secs(secs).to_proto());
    response::GetAgent {
        agent_info: Some(agent_info(served)),
        drain_config: drain.map(|(config, _)| config),
        estimated_drain_start_time: start,
    }
}

pub(super) fn list_files(served: &Served, path: &str) -> Result<Vec<v1::FileInfo>, Refusal> {
    let place = resolve(served, path).ok_or_else(no_file)?;
    let all = sandboxes::browse(path, &place).map_err(|error| file_refusal(&error))?;
    let mut names = Names::default();
    Ok(all
        .into_iter()
        .map(|one| v1::FileInfo {
            nlink: i32::try_from(one.nlink).ok(),
            size: Some(one.size),
            mtime: Some(v1::TimeInfo {
                nanoseconds: Duration::from_secs(u64::try_from(one.mtime).unwrap_or(0))
                    .as_nanos()
                    .try_into()
                    .unwrap_or(i64::MAX),
            }),
            mode: Some(one.mode),
            uid: Some(names.user(one.uid)),
            gid: Some(names.group(one.gid)),
            path: one.path,
        })
        .collect())
}

pub(super) fn frameworks(all: &Frameworks) -> response::GetFrameworks {
    let show = |framework: &Framework| response::get_frameworks::Framework {
        framework_info: (*framework.info).clone(),
    };
    response::GetFrameworks {
        frameworks: all.active.iter().map(show).collect(),
        completed_frameworks: all.completed.iter().map(show).collect(),
    }
}

pub(super) fn executors(all: &Frameworks) -> response::GetExecutors {
    let show = |executor: &Arc<Executor>| response::get_executors::Executor {
        executor_info: (*executor.info).clone(),
    };
    let live = all.active.iter().flat_map(|framework| &framework.executors);
    let ended = all.active.iter().chain(&all.completed).flat_map(|framework| &framework.completed);
    response::GetExecutors {
        executors: live.map(show).collect(),
        completed_executors: ended.map(show).collect(),
    }
}

pub(super) fn tasks(all: &Frameworks) -> response::GetTasks {
    let mut out = response::GetTasks::default();
    for framework in all.active.iter().chain(&all.completed) {
        for executor in framework.executors.iter().chain(&framework.completed) {
            out.queued_tasks.extend(executor.queued().cloned());
            out.launched_tasks.extend(executor.launched().cloned());
            out.terminated_tasks.extend(executor.terminated().cloned());
            out.completed_tasks.extend(executor.completed().cloned());
        }
    }
    out
}

/// Lists that Mesos writes even when they are empty, in its order.
const LISTS: [(&str, &[&str]); 3] = [
    (
        "get_tasks",
        &["pending_tasks", "queued_tasks", "launched_tasks", "terminated_tasks", "completed_tasks"],
    ),
    ("get_executors", &["executors", "completed_executors"]),
    ("get_frameworks", &["frameworks", "completed_frameworks"]),
];

pub(super) fn json_text(response: &Response) -> String {
    let mut value = to_value(response);
    for (name, lists) in LISTS {
        for path in [format!("/{name}"), format!("/get_state/{name}")] {
            if let Some(Value::Object(part)) = value.pointer_mut(&path) {
                let list = |list: &&str| {
                    let known = part.remove(*list).unwrap_or_else(|| Value::Array(Vec::new()));
                    ((*list).to_owned(), known)
                };
                *part = lists.iter().map(list).collect();
            }
        }
    }
    value.to_string()
}
