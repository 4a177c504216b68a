//! Mesos' operator API, `POST /api/v1` (rules 79 to 81): its calls become the same reads of
//! the read model and the same commands of the core as those of our own API.

mod answers;
mod calls;
mod stream;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::any,
};
use mezz_http::{Room, post, with_below};
use mezz_proto::{
    media::{Format, MediaError},
    v1::master::{Call, call::Type},
};

use super::{delivery, pages::Pages, refusal::Refusal};
use crate::shell::limits::MAX_OPERATOR_REQUEST_BYTES;

/// The API's routes. pymesos' operators call `/api/v1/operator`.
pub fn routes(pages: Arc<Pages>) -> Router {
    let router = with_below(Router::new(), "/api/v1", any(answer));
    with_below(router, "/master/api/v1", any(answer)).with_state(pages)
}

/// In the order of rule 2: the method, the form, the body, what it says, and at last what
/// the client takes.
async fn answer(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    match taken(&pages, request).await {
        Ok((kind, call, form, room)) => {
            // What is read needs its call no more; what is changed waits for the core with it.
            let reads = kind == Type::Subscribe || kind.as_str_name().starts_with("GET_");
            let _room = (!reads).then_some(room);
            calls::answer(pages, kind, call, form).await
        }
        Err(refused) => refused.into_response(),
    }
}

async fn taken(pages: &Pages, request: Request) -> Result<(Type, Call, Format, Room), Refusal> {
    let (head, given, form) = post(request).await?;
    let bodies = pages.api.core.operator_bodies();
    let (call, room) = bodies.read::<Call>(given, form, MAX_OPERATOR_REQUEST_BYTES).await?;
    let kind = valid(&call).map_err(|missing| {
        Refusal::bad(format!(
            "Failed to validate master::Call: Expecting '{missing}' to be present"
        ))
    })?;
    Ok((kind, call, accepted(&head.headers)?, room))
}

fn accepted(headers: &HeaderMap) -> Result<Format, MediaError> {
    Format::accepted(headers.get_all(header::ACCEPT).iter().map(header::HeaderValue::as_bytes))
}

/// A message as an answer.
fn encoded(form: Format, bytes: impl Into<bytes::Bytes>) -> Response {
    delivery::response(form.name(), vec![bytes.into()])
}

/// The call's type, if what goes with it is there; else what is missing. A number that is
/// no type counts as none, as Mesos reads it.
// The older calls of quotas are checked like the others.
#[allow(deprecated)]
fn valid(call: &Call) -> Result<Type, &'static str> {
    let kind = call.r#type.and_then(|kind| Type::try_from(kind).ok()).ok_or("type")?;
    let there = |is: bool, name| if is { Ok(kind) } else { Err(name) };
    match kind {
        Type::GetMetrics => there(call.get_metrics.is_some(), "get_metrics"),
        Type::SetLoggingLevel => there(call.set_logging_level.is_some(), "set_logging_level"),
        Type::ListFiles => there(call.list_files.is_some(), "list_files"),
        Type::ReadFile => there(call.read_file.is_some(), "read_file"),
        Type::UpdateWeights => there(call.update_weights.is_some(), "update_weights"),
        Type::ReserveResources => there(call.reserve_resources.is_some(), "reserve_resources"),
        Type::UnreserveResources => {
            there(call.unreserve_resources.is_some(), "unreserve_resources")
        }
        Type::CreateVolumes => there(call.create_volumes.is_some(), "create_volumes"),
        Type::DestroyVolumes => there(call.destroy_volumes.is_some(), "destroy_volumes"),
        Type::GrowVolume => there(call.grow_volume.is_some(), "grow_volume"),
        Type::ShrinkVolume => there(call.shrink_volume.is_some(), "shrink_volume"),
        Type::UpdateMaintenanceSchedule => {
            there(call.update_maintenance_schedule.is_some(), "update_maintenance_schedule")
        }
        Type::StartMaintenance => there(call.start_maintenance.is_some(), "start_maintenance"),
        Type::StopMaintenance => there(call.stop_maintenance.is_some(), "stop_maintenance"),
        Type::DrainAgent => there(call.drain_agent.is_some(), "drain_agent"),
        Type::DeactivateAgent => there(call.deactivate_agent.is_some(), "deactivate_agent"),
        Type::ReactivateAgent => there(call.reactivate_agent.is_some(), "reactivate_agent"),
        Type::UpdateQuota => there(call.update_quota.is_some(), "update_quota"),
        Type::SetQuota => there(call.set_quota.is_some(), "set_quota"),
        Type::RemoveQuota => there(call.remove_quota.is_some(), "remove_quota"),
        Type::Teardown => there(call.teardown.is_some(), "teardown"),
        Type::MarkAgentGone => there(call.mark_agent_gone.is_some(), "mark_agent_gone"),
        _ => Ok(kind),
    }
}
