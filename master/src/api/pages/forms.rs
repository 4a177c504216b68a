//! What operators post to pages, and pages that have nothing to show (rules 87 to 89).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use mezz_http::discard;
use mezz_proto::{json as dialect, mezz::v1 as mezz, v1};
use serde::Serialize;

use super::{Page, Pages, arguments, callback, json, small, text, unavailable, written};
use crate::{
    api::refusal::Refusal,
    core::{OperatorCommand, OperatorError, OperatorReply},
    shell::{
        handle::NoAnswer,
        limits::{MAX_OPERATOR_REQUEST_BYTES, OPERATOR_TIMEOUT},
    },
};

/// Why an order was not carried out.
pub enum NotDone {
    /// The core refused it.
    Refused(OperatorError),
    /// The core did not answer. Status 503.
    NoAnswer(NoAnswer),
}

impl Pages {
    /// Has the core carry out an order.
    pub async fn order(&self, command: OperatorCommand) -> Result<OperatorReply, NotDone> {
        match self.api.core.operate(command, OPERATOR_TIMEOUT).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(refused)) => Err(NotDone::Refused(refused)),
            Err(silent) => Err(NotDone::NoAnswer(silent)),
        }
    }

    /// The words and status for an order that has no content to answer with.
    pub async fn obey(
        &self,
        command: OperatorCommand,
        refused: impl FnOnce(OperatorError) -> Response,
    ) -> Response {
        match self.order(command).await {
            Ok(_) => StatusCode::OK.into_response(),
            Err(NotDone::Refused(error)) => refused(error),
            Err(NotDone::NoAnswer(silent)) => no_answer(silent),
        }
    }
}

fn no_answer(silent: NoAnswer) -> Response {
    let words = match silent {
        NoAnswer::Stopped => "the master is stopping",
        NoAnswer::TooLate => "the master did not answer in time; it is overloaded, try again",
    };
    text(StatusCode::SERVICE_UNAVAILABLE, words)
}

/// `/teardown`: a form with `frameworkId`.
pub async fn teardown(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    if request.method() != Method::POST {
        let refusal = Refusal::not_post(request.method());
        discard(request.into_body()).await;
        return refusal.into_response();
    }
    let bodies = pages.api.core.operator_bodies();
    let given = bodies.collect(request.into_body(), MAX_OPERATOR_REQUEST_BYTES);
    let (form, _room) = match given.await {
        Ok(form) => form,
        Err(error) => return Refusal::from(error).into_response(),
    };
    // The rules of a form are those of a query.
    let form = std::str::from_utf8(&form).ok().map(|form| format!("/?{}", form.trim()));
    let Some(Ok(form)) = form.map(Uri::try_from) else {
        return text(StatusCode::BAD_REQUEST, "Unable to decode query string");
    };
    match arguments(&form).remove("frameworkId") {
        None => text(
            StatusCode::BAD_REQUEST,
            "Missing 'frameworkId' query parameter in the request body",
        ),
        Some(framework_id) => pages.teardown(framework_id).await,
    }
}

impl Pages {
    /// Ends a framework.
    pub async fn teardown(&self, framework_id: String) -> Response {
        let command = OperatorCommand::Teardown(mezz::TeardownRequest { framework_id });
        self.obey(command, |_| {
            text(StatusCode::BAD_REQUEST, "No framework found with specified ID")
        })
        .await
    }

    /// Sets weights; the words for a bad one are ours.
    pub async fn set_weights(&self, weights: Vec<v1::WeightInfo>) -> Response {
        let weights = weights
            .into_iter()
            .map(|w| mezz::RoleWeight { role: w.role.unwrap_or_default(), weight: w.weight })
            .collect();
        let command = OperatorCommand::UpdateWeights(mezz::UpdateWeightsRequest { weights });
        self.obey(command, |error| {
            let words = format!("Failed to validate update weights request: {error}");
            text(StatusCode::BAD_REQUEST, words)
        })
        .await
    }
}

#[derive(Serialize)]
struct Weight<'a> {
    role: &'a str,
    weight: f64,
}

/// GET `/weights`: those that were set.
pub async fn weights(State(pages): State<Arc<Pages>>, uri: Uri) -> Page {
    let jsonp = callback(&arguments(&uri))?;
    let model = pages.api.model.clone();
    let make = move || {
        let weights = model.weights();
        let list: Vec<_> =
            weights.iter().map(|(role, weight)| Weight { role, weight: *weight }).collect();
        written(&list)
    };
    Ok(match pages.quick.page(make).await {
        Ok(page) => json(page, jsonp.as_ref()),
        Err(error) => unavailable(&error),
    })
}

/// PUT `/weights`: a list of objects with `role` and `weight`.
pub async fn put_weights(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let bodies = pages.api.core.operator_bodies();
    let given = bodies.collect(request.into_body(), MAX_OPERATOR_REQUEST_BYTES);
    let (given, _room) = match given.await {
        Ok(given) => given,
        Err(error) => return Refusal::from(error).into_response(),
    };
    let read = move || {
        let text = std::str::from_utf8(&given).map_err(|error| error.to_string())?;
        dialect::list_from_str::<v1::WeightInfo>(text).map_err(|error| error.to_string())
    };
    match pages.quick.make(read).await {
        Ok(Ok(weights)) => pages.set_weights(weights).await,
        Ok(Err(error)) => text(
            StatusCode::BAD_REQUEST,
            format!("Failed to parse update weights request JSON: {error}"),
        ),
        Err(error) => unavailable(&error),
    }
}

/// GET of what there is none of: no quota, no maintenance.
pub async fn nothing(uri: Uri) -> Response {
    small(&serde_json::Map::new(), &arguments(&uri))
}

/// What Mezz cannot do, in the words of Mesos for it.
pub async fn not_implemented() -> Refusal {
    Refusal::not_implemented()
}

/// The same, where another method than POST is refused before.
pub async fn not_implemented_post(method: Method) -> Refusal {
    if method != Method::POST {
        return Refusal::not_post(&method);
    }
    Refusal::not_implemented()
}

/// A master has no sandboxes: no path that is asked for is there.
pub async fn no_file(uri: Uri) -> Response {
    match arguments(&uri).get("path") {
        None => text(StatusCode::BAD_REQUEST, "Expecting 'path=value' in query.\n"),
        Some(_) => text(StatusCode::NOT_FOUND, "404 Not Found."),
    }
}
