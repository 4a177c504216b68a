//! What can be said of a call before its executor is looked for.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use mezz_http::Ends;
use mezz_proto::{
    ids::{ExecutorId, FrameworkId},
    media::Format,
    v1::executor::{Call, call},
};

use super::super::refusal::Refusal;
use crate::core::{CallError, ExecutorKey, Proof, check_update};

/// Who the request shows to come from.
pub(super) fn proof(request: &Parts) -> Result<Proof, Refusal> {
    // Without the connection's ends nobody is near.
    let local = request.extensions.get::<Ends>().is_some_and(|ends| ends.local);
    let Some(given) = request.headers.get(header::AUTHORIZATION) else {
        return Ok(Proof::http(None, local));
    };
    match given.to_str().ok().and_then(|given| given.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Proof::http(Some(token.trim().to_owned()), local))
        }
        _ => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            CallError::NoToken("no other proof is known here").to_string(),
        )),
    }
}

/// In what form events are wanted.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Format, Refusal> {
    Ok(Format::accepted(headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes))?)
}

/// What a call is, if it has all that it needs; else why not, in Mesos' words.
pub(super) fn validate(call: &Call) -> Result<call::Type, String> {
    use call::Type;
    let kind = match call.r#type {
        None => return Err("Expecting 'type' to be present".to_owned()),
        Some(_) => call.r#type(),
    };
    let needs = |field: &str, there: bool| {
        if there { Ok(()) } else { Err(format!("Expecting '{field}' to be present")) }
    };
    match kind {
        Type::Subscribe => needs("subscribe", call.subscribe.is_some())?,
        Type::Message => needs("message", call.message.is_some())?,
        Type::Update => needs("update", call.update.is_some())?,
        Type::Heartbeat | Type::Unknown => {}
    }
    if let Some(update) = call.update.as_ref().filter(|_| kind == Type::Update) {
        check_update(&key_of(call), &update.status)?;
    }
    Ok(kind)
}

pub(super) fn key_of(call: &Call) -> ExecutorKey {
    ExecutorKey {
        framework: FrameworkId::from(&call.framework_id),
        executor: ExecutorId::from(&call.executor_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_checked_before_the_core_sees_them() {
        let check = |text: &str| {
            validate(&Format::Json.decode(text.as_bytes()).map_err(|error| error.to_string())?)
        };
        let with = |rest: &str| {
            format!(r#"{{"executor_id":{{"value":"e"}},"framework_id":{{"value":"f"}}{rest}}}"#)
        };
        let status = |rest: &str| {
            let status = format!(r#""task_id":{{"value":"t"}},"state":"TASK_RUNNING"{rest}"#);
            with(&format!(r#","type":"UPDATE","update":{{"status":{{{status}}}}}"#))
        };
        for (text, tells) in [
            (with(""), "Expecting 'type' to be present"),
            (with(r#","type":"NOTHING""#), "Expecting 'type' to be present"),
            (with(r#","type":"SUBSCRIBE""#), "Expecting 'subscribe' to be present"),
            (with(r#","type":"UPDATE""#), "Expecting 'update' to be present"),
            (with(r#","type":"MESSAGE""#), "Expecting 'message' to be present"),
            (status(""), "Expecting 'uuid' to be present"),
            (status(r#","uuid":"AAAA""#), "Not a valid UUID"),
            (
                status(r#","uuid":"AAAAAAAAAAAAAAAAAAAAAA==","executor_id":{"value":"x"}"#),
                "ExecutorID in Call: e does not match ExecutorID in TaskStatus: x",
            ),
            (
                status(r#","uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#),
                "Received Call from executor e of framework f with invalid source, expecting 'S",
            ),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(tells), "{text}: {error}");
        }
        let whole = status(r#","source":"SOURCE_EXECUTOR","uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#);
        assert_eq!(check(&whole), Ok(call::Type::Update));
        assert_eq!(check(&with(r#","type":"HEARTBEAT""#)), Ok(call::Type::Heartbeat));
    }
}
