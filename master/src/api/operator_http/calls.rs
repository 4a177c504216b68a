//! What each call does.

use std::sync::Arc;

use super::{
    answers::{self, Wanted},
    encoded, stream,
};
use crate::{
    api::{
        pages::{Pages, all_metrics, answers::NoPage, text, unavailable},
        refusal::Refusal,
    },
    core::{OperatorCommand, OperatorError, master_info},
    shell::snapshot::Include,
};
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mezz_http::set_logging_level;
use mezz_proto::{
    logging,
    media::Format,
    mezz::v1 as mezz,
    v1::{
        self,
        master::{Call, Response as Answer, call::Type, response},
    },
};

pub(super) async fn answer(pages: Arc<Pages>, kind: Type, call: Call, form: Format) -> Response {
    let api = &pages.api;
    let mut out = Answer::default();
    match kind {
        Type::Subscribe => return stream::subscribe(&pages, form).await,
        Type::GetState
        | Type::GetAgents
        | Type::GetFrameworks
        | Type::GetExecutors
        | Type::GetTasks
        | Type::GetRoles => return read(&pages, kind, form).await,
        Type::GetMetrics => return metrics(&pages, form).await,
        Type::GetHealth => {
            out.set_type(response::Type::GetHealth);
            out.get_health = Some(response::GetHealth { healthy: true });
        }
        Type::GetFlags => {
            out.set_type(response::Type::GetFlags);
            let flag = |(name, value): (&String, &String)| v1::Flag {
                name: name.clone(),
                value: Some(value.clone()),
            };
            let flags = api.identity.flags.iter().map(flag).collect();
            out.get_flags = Some(response::GetFlags { flags });
        }
        Type::GetVersion => {
            out.set_type(response::Type::GetVersion);
            let version_info = mezz_proto::pages::Version::of_build().to_proto();
            out.get_version = Some(response::GetVersion { version_info });
        }
        Type::GetLoggingLevel => {
            out.set_type(response::Type::GetLoggingLevel);
            let level = logging::verbosity();
            out.get_logging_level = Some(response::GetLoggingLevel { level });
        }
        Type::GetMaster => {
            out.set_type(response::Type::GetMaster);
            out.get_master = Some(response::GetMaster {
                master_info: Some(master_info(&api.identity.id, &api.identity.address)),
                start_time: Some(api.identity.clock.start_time().as_secs_f64()),
                elected_time: Some(api.elected.as_secs_f64()),
            });
        }
        Type::GetWeights => return weights(&pages, form).await,
        Type::GetQuota => {
            out.set_type(response::Type::GetQuota);
            out.get_quota = Some(response::GetQuota::default());
        }
        Type::GetMaintenanceStatus => {
            out.set_type(response::Type::GetMaintenanceStatus);
            out.get_maintenance_status = Some(response::GetMaintenanceStatus::default());
        }
        Type::GetMaintenanceSchedule => {
            out.set_type(response::Type::GetMaintenanceSchedule);
            out.get_maintenance_schedule = Some(response::GetMaintenanceSchedule::default());
        }
        Type::GetOperations => {
            out.set_type(response::Type::GetOperations);
            out.get_operations = Some(response::GetOperations::default());
        }
        // A master has no sandboxes: no path that is asked for is there.
        Type::ListFiles | Type::ReadFile => return text(StatusCode::NOT_FOUND, "404 Not Found."),
        _ => return write(&pages, kind, call).await,
    }
    encoded(form, form.encode(&out))
}

/// Answers that may be large.
async fn read(pages: &Arc<Pages>, kind: Type, form: Format) -> Response {
    let (wanted, include) = match kind {
        Type::GetState => (Wanted::State, Include::ALL),
        Type::GetAgents => (Wanted::Agents, Include::NONE),
        Type::GetFrameworks => (Wanted::Frameworks, Include { offers: true, ..Include::NONE }),
        Type::GetExecutors => (Wanted::Executors, Include { executors: true, ..Include::NONE }),
        Type::GetTasks => (Wanted::Tasks, Include { tasks: true, ..Include::NONE }),
        _ => (Wanted::Roles, Include::NONE),
    };
    let model = pages.api.model.clone();
    let make = move || answers::written(wanted, &model.snapshot(include), form);
    let made = if (kind, form) == (Type::GetState, Format::Json) {
        pages.get_state.get(&pages.answers, make).await
    } else {
        pages.answers_for(include).page(make).await
    };
    sent(form, made)
}

async fn metrics(pages: &Pages, form: Format) -> Response {
    let page = match all_metrics(pages).await {
        Ok(page) => page,
        Err(error) => return unavailable(&error),
    };
    let make = move || {
        let all: std::collections::BTreeMap<String, f64> =
            serde_json::from_slice(&page).unwrap_or_default();
        let metrics =
            all.into_iter().map(|(name, value)| v1::Metric { name, value: Some(value) }).collect();
        let mut out = Answer::default();
        out.set_type(response::Type::GetMetrics);
        out.get_metrics = Some(response::GetMetrics { metrics });
        form.encode(&out)
    };
    sent(form, pages.quick.page(make).await)
}

async fn weights(pages: &Pages, form: Format) -> Response {
    let model = pages.api.model.clone();
    let make = move || {
        let weight = |(role, weight): (&String, &f64)| v1::WeightInfo {
            role: Some(role.clone()),
            weight: *weight,
        };
        let weight_infos: Vec<_> = model.weights().iter().map(weight).collect();
        let mut out = Answer::default();
        out.set_type(response::Type::GetWeights);
        // Mesos says nothing rather than an empty list.
        out.get_weights =
            (!weight_infos.is_empty()).then_some(response::GetWeights { weight_infos });
        form.encode(&out)
    };
    sent(form, pages.quick.page(make).await)
}

fn sent(form: Format, made: Result<bytes::Bytes, NoPage>) -> Response {
    match made {
        Ok(bytes) => encoded(form, bytes),
        Err(error) => unavailable(&error),
    }
}

/// Calls that change something. What needs reservations, volumes, quota or maintenance is
/// refused as Mesos refuses what it does not have.
async fn write(pages: &Pages, kind: Type, call: Call) -> Response {
    match kind {
        Type::Teardown => {
            let id = call.teardown.map(|c| c.framework_id.value).unwrap_or_default();
            pages.teardown(id).await
        }
        Type::UpdateWeights => {
            let weights = call.update_weights.map(|c| c.weight_infos).unwrap_or_default();
            pages.set_weights(weights).await
        }
        Type::SetLoggingLevel => {
            let asked = call.set_logging_level.unwrap_or_default();
            match set_logging_level(asked.level, asked.duration.nanoseconds) {
                Ok(()) => StatusCode::OK.into_response(),
                Err(refused) => refused.into_response(),
            }
        }
        Type::DrainAgent => {
            let drain = call.drain_agent.unwrap_or_default();
            let max_grace_period = match drain.max_grace_period.map(nanoseconds) {
                None => None,
                Some(Ok(nanoseconds)) => Some(v1::DurationInfo { nanoseconds }),
                Some(Err(refused)) => return refused.into_response(),
            };
            let request = mezz::DrainAgentRequest {
                agent_id: drain.agent_id.value,
                max_grace_period,
                mark_gone: drain.mark_gone,
            };
            pages.obey(OperatorCommand::DrainAgent(request), refused_drain).await
        }
        Type::DeactivateAgent => {
            let agent_id = call.deactivate_agent.unwrap_or_default().agent_id.value;
            let request = mezz::DeactivateAgentRequest { agent_id };
            pages.obey(OperatorCommand::DeactivateAgent(request), refused_400).await
        }
        Type::ReactivateAgent => {
            let agent_id = call.reactivate_agent.unwrap_or_default().agent_id.value;
            let request = mezz::ReactivateAgentRequest { agent_id };
            pages.obey(OperatorCommand::ReactivateAgent(request), refused_400).await
        }
        Type::MarkAgentGone => {
            let id = call.mark_agent_gone.unwrap_or_default().agent_id.value;
            let refused = |error| match error {
                OperatorError::NotFound(words) => text(StatusCode::NOT_FOUND, words),
                other => refused_400(other),
            };
            pages.obey(OperatorCommand::MarkAgentGone(id), refused).await
        }
        _ => text(StatusCode::NOT_IMPLEMENTED, "501 Not Implemented."),
    }
}

/// Rule 80: 400 for an agent that is not known.
fn refused_400(error: OperatorError) -> Response {
    text(StatusCode::BAD_REQUEST, error.to_string())
}

/// Rule 80: 409 for one that is marked gone.
fn refused_drain(error: OperatorError) -> Response {
    match error {
        OperatorError::NotAllowed(words) => text(StatusCode::CONFLICT, words),
        other => refused_400(other),
    }
}

fn nanoseconds(given: prost_types::Duration) -> Result<i64, Refusal> {
    given
        .seconds
        .checked_mul(1_000_000_000)
        .and_then(|nanos| nanos.checked_add(given.nanos.into()))
        .ok_or_else(|| {
            Refusal::bad(format!(
                "max_grace_period: {} s is more than can be counted",
                given.seconds
            ))
        })
}
