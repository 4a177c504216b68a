//! What can be said of a framework's call without knowing the framework. The texts are
//! those of Mesos, which clients print.

use mezz_proto::v1::{
    FrameworkId,
    offer::Operation,
    scheduler::{Call, call::Type},
};

use super::ids;

/// Tasks that a RECONCILE may name. The answers of so many fit into a framework's outbox.
const MAX_NAMED_TASKS: usize = 50_000;

/// The same of RECONCILE_OPERATIONS, whose answers go out twice.
const MAX_NAMED_OPERATIONS: usize = 10_000;

/// Tasks and operations of an ACCEPT. Each may be refused by an event, and the tasks fit into
/// the agent's outbox.
const MAX_LAUNCHED: usize = 10_000;

/// Checks rules 6 and 8 and that the part is there that the call's type asks for.
///
/// # Errors
/// A sentence that names the field.
pub fn check_call(call: &Call) -> Result<Type, String> {
    let kind = kind(call)?;
    check_part(call, kind)?;
    Ok(kind)
}

fn kind(call: &Call) -> Result<Type, String> {
    // An unknown number is no type, as in Mesos' own reader.
    call.r#type.and_then(|number| Type::try_from(number).ok()).ok_or_else(|| missing("type"))
}

fn check_part(call: &Call, kind: Type) -> Result<(), String> {
    let (field, there) = match kind {
        Type::Subscribe => ("subscribe", call.subscribe.is_some()),
        Type::Accept => ("accept", call.accept.is_some()),
        Type::Decline => ("decline", call.decline.is_some()),
        Type::AcceptInverseOffers => {
            ("accept_inverse_offers", call.accept_inverse_offers.is_some())
        }
        Type::DeclineInverseOffers => {
            ("decline_inverse_offers", call.decline_inverse_offers.is_some())
        }
        Type::Kill => ("kill", call.kill.is_some()),
        Type::Shutdown => ("shutdown", call.shutdown.is_some()),
        Type::Acknowledge => ("acknowledge", call.acknowledge.is_some()),
        Type::AcknowledgeOperationStatus => {
            ("acknowledge_operation_status", call.acknowledge_operation_status.is_some())
        }
        Type::Reconcile => ("reconcile", call.reconcile.is_some()),
        Type::ReconcileOperations => ("reconcile_operations", call.reconcile_operations.is_some()),
        Type::Message => ("message", call.message.is_some()),
        Type::Request => ("request", call.request.is_some()),
        Type::UpdateFramework => ("update_framework", call.update_framework.is_some()),
        Type::Unknown | Type::Teardown | Type::Revive | Type::Suppress => ("", true),
    };
    if !there {
        return Err(missing(field));
    }
    match kind {
        Type::Subscribe => {
            let info = call.subscribe.as_ref().map(|subscribe| &subscribe.framework_info);
            same_id(call, info.and_then(|info| info.id.as_ref()), "subscribe")?;
        }
        Type::Accept => {
            let operations = call.accept.iter().flat_map(|accept| &accept.operations);
            at_most(MAX_LAUNCHED, operations.map(weight).sum(), "accept.operations")?;
        }
        Type::Acknowledge => {
            let acknowledge = call.acknowledge.as_ref();
            uuid("acknowledge.uuid", acknowledge.map(|a| &a.uuid[..]))?;
        }
        Type::Reconcile => {
            let named = call.reconcile.as_ref().map_or(0, |reconcile| reconcile.tasks.len());
            at_most(MAX_NAMED_TASKS, named, "reconcile.tasks")?;
        }
        Type::ReconcileOperations => {
            let named = call.reconcile_operations.as_ref().map_or(0, |r| r.operations.len());
            at_most(MAX_NAMED_OPERATIONS, named, "reconcile_operations.operations")?;
        }
        Type::AcknowledgeOperationStatus => {
            let acknowledge = call.acknowledge_operation_status.as_ref();
            let field = "acknowledge_operation_status.uuid";
            uuid(field, acknowledge.map(|a| &a.uuid[..]))?;
            // Rule 44.
            if acknowledge.is_some_and(|a| a.agent_id.is_none()) {
                return Err(missing("agent_id"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// As [`check_call`], for a call that comes by itself: it has to say whose it is, and that
/// is asked before its part.
///
/// # Errors
/// A sentence that names the field.
pub fn check_request(call: &Call) -> Result<Type, String> {
    let kind = kind(call)?;
    if kind != Type::Subscribe && call.framework_id.is_none() {
        return Err(missing("framework_id"));
    }
    check_part(call, kind)?;
    if let (Type::UpdateFramework, Some(update)) = (kind, &call.update_framework) {
        same_id(call, update.framework_info.id.as_ref(), "update_framework")?;
    }
    Ok(kind)
}

/// Rules 5 and 6: who has proved who it is calls as that, and as nobody else. One that says
/// nothing of itself when it subscribes is told to be what it has proved.
///
/// # Errors
/// A sentence.
pub fn claim(call: &mut Call, principal: Option<&str>) -> Result<(), String> {
    let Some(principal) = principal else { return Ok(()) };
    if call.r#type != Some(Type::Subscribe as i32) {
        return Ok(());
    }
    let Some(subscribe) = &mut call.subscribe else { return Ok(()) };
    match &subscribe.framework_info.principal {
        Some(said) if said != principal => Err(other_principal(principal, said)),
        Some(_) => Ok(()),
        None => {
            subscribe.framework_info.principal = Some(principal.to_owned());
            Ok(())
        }
    }
}

/// In Mesos' words.
pub fn other_principal(proved: &str, said: &str) -> String {
    format!(
        "Authenticated principal '{proved}' does not match principal '{said}' set in \
         `FrameworkInfo`"
    )
}

/// An operation and its tasks.
fn weight(operation: &Operation) -> usize {
    let launch = operation.launch.as_ref().map_or(0, |launch| launch.task_infos.len());
    let group = operation.launch_group.as_ref().map_or(0, |group| group.task_group.tasks.len());
    1 + launch + group
}

/// Each is answered by an event, all in one turn of the core.
fn at_most(most: usize, given: usize, field: &str) -> Result<(), String> {
    if given <= most {
        return Ok(());
    }
    Err(format!("'{field}' are too many: {given}, and {most} at most; use several calls"))
}

fn missing(field: &str) -> String {
    format!("Expecting '{field}' to be present")
}

/// An id that is present but empty counts as none.
fn same_id(call: &Call, of_info: Option<&FrameworkId>, part: &str) -> Result<(), String> {
    fn text(id: Option<&FrameworkId>) -> &str {
        id.map_or("", |id| &id.value)
    }
    if text(call.framework_id.as_ref()) == text(of_info) {
        return Ok(());
    }
    Err(format!("'framework_id' differs from '{part}.framework_info.id'"))
}

fn uuid(field: &str, value: Option<&[u8]>) -> Result<(), String> {
    let read = ids::uuid(field, value.unwrap_or_default());
    read.map(|_| ()).map_err(|text| format!("Not a valid UUID: {text}"))
}

#[cfg(test)]
mod tests {
    use mezz_proto::media::Format;

    use super::*;

    fn checked(json: &str) -> Result<Type, String> {
        check_request(&Format::Json.decode(json.as_bytes()).unwrap())
    }

    #[test]
    fn every_type_wants_its_part_and_its_framework() {
        for number in 0..=17 {
            let kind = Type::try_from(number).unwrap();
            let name = kind.as_str_name();
            let part = name.to_lowercase();
            let alone = checked(&format!(r#"{{"type":"{name}"}}"#));
            let id = r#""framework_id":{"value":"f"}"#;
            let named = checked(&format!(r#"{{"type":"{name}",{id}}}"#));
            let missing = |field: &str| Err(format!("Expecting '{field}' to be present"));
            let first = if kind == Type::Subscribe { "subscribe" } else { "framework_id" };
            assert_eq!(alone, missing(first), "{name}");
            match kind {
                Type::Unknown | Type::Teardown | Type::Revive | Type::Suppress => {
                    assert_eq!(named, Ok(kind));
                }
                _ => assert_eq!(named, missing(&part), "{name}"),
            }
        }
        let error = Err("Expecting 'type' to be present".to_owned());
        assert_eq!(checked("{}"), error);
        assert_eq!(checked(r#"{"type":"NOTHING"}"#), error);
        assert_eq!(check_call(&Call { r#type: Some(99), ..Default::default() }), error);
    }

    #[test]
    fn a_call_names_so_many_and_no_more() {
        use mezz_proto::v1::{
            offer::operation::Launch,
            scheduler::call::{Accept, Reconcile, ReconcileOperations},
        };
        let framework_id = Some(FrameworkId { value: "f".to_owned() });
        let tasks = |count| Call {
            framework_id: framework_id.clone(),
            r#type: Some(Type::Reconcile as i32),
            reconcile: Some(Reconcile { tasks: vec![Default::default(); count] }),
            ..Default::default()
        };
        let operations = |count| Call {
            framework_id: framework_id.clone(),
            r#type: Some(Type::ReconcileOperations as i32),
            reconcile_operations: Some(ReconcileOperations {
                operations: vec![Default::default(); count],
            }),
            ..Default::default()
        };
        let launching = |count| {
            let task_infos = vec![Default::default(); count];
            let operation = Operation { launch: Some(Launch { task_infos }), ..Default::default() };
            Call {
                framework_id: framework_id.clone(),
                r#type: Some(Type::Accept as i32),
                accept: Some(Accept { operations: vec![operation], ..Default::default() }),
                ..Default::default()
            }
        };
        assert_eq!(check_call(&launching(MAX_LAUNCHED - 1)), Ok(Type::Accept));
        let error = check_call(&launching(MAX_LAUNCHED)).unwrap_err();
        assert!(error.starts_with("'accept.operations' are too many: 10001"), "{error}");
        assert_eq!(check_call(&tasks(MAX_NAMED_TASKS)), Ok(Type::Reconcile));
        let error = check_call(&tasks(MAX_NAMED_TASKS + 1)).unwrap_err();
        assert!(error.starts_with("'reconcile.tasks' are too many: 50001, and 50000"), "{error}");
        assert_eq!(check_call(&operations(MAX_NAMED_OPERATIONS)), Ok(Type::ReconcileOperations));
        let error = check_call(&operations(MAX_NAMED_OPERATIONS + 1)).unwrap_err();
        assert!(error.contains("reconcile_operations.operations"), "{error}");
    }

    #[test]
    fn ids_agree() {
        let subscribe = |of_call: &str, of_info: &str| {
            let info = format!(r#"{{"user":"u","name":"n"{of_info}}}"#);
            checked(&format!(
                r#"{{"type":"SUBSCRIBE"{of_call},"subscribe":{{"framework_info":{info}}}}}"#
            ))
        };
        let (call, info) = (r#","framework_id":{"value":"f"}"#, r#","id":{"value":"f"}"#);
        assert_eq!(subscribe("", ""), Ok(Type::Subscribe));
        assert_eq!(subscribe(call, info), Ok(Type::Subscribe));
        assert_eq!(subscribe(r#","framework_id":{"value":""}"#, ""), Ok(Type::Subscribe));
        let differs = "'framework_id' differs from 'subscribe.framework_info.id'";
        assert_eq!(subscribe(call, ""), Err(differs.to_owned()));
        assert_eq!(subscribe("", info), Err(differs.to_owned()));
        let update = r#""update_framework":{"framework_info":{"user":"u","name":"n"}}"#;
        let update = checked(&format!(r#"{{"type":"UPDATE_FRAMEWORK"{call},{update}}}"#));
        assert!(update.unwrap_err().contains("update_framework.framework_info.id"));
    }

    #[test]
    fn a_framework_subscribes_as_who_it_has_proved_to_be() {
        let subscribe = |said: &str, proved: Option<&str>| {
            let info = format!(r#"{{"user":"u","name":"n"{said}}}"#);
            let json = format!(r#"{{"type":"SUBSCRIBE","subscribe":{{"framework_info":{info}}}}}"#);
            let mut call: Call = Format::Json.decode(json.as_bytes()).unwrap();
            claim(&mut call, proved).map(|()| call.subscribe.unwrap().framework_info.principal)
        };
        let said = r#","principal":"a""#;
        let a = Ok(Some("a".to_owned()));
        assert_eq!(subscribe("", Some("a")), a, "copied in");
        assert_eq!(subscribe(said, Some("a")), a);
        assert_eq!(subscribe(said, None), a, "nobody is asked");
        assert_eq!(subscribe("", None), Ok(None));
        for said in [said, r#","principal":"""#] {
            let error = subscribe(said, Some("b")).unwrap_err();
            assert!(error.starts_with("Authenticated principal 'b' does not match"), "{error}");
        }
        // What others say of themselves is looked at by the core.
        let json = r#"{"type":"TEARDOWN","framework_id":{"value":"f"}}"#;
        let mut call: Call = Format::Json.decode(json.as_bytes()).unwrap();
        assert_eq!(claim(&mut call, Some("a")), Ok(()));
    }

    #[test]
    fn acknowledgements_have_uuids() {
        let acknowledge = |rest: &str| {
            let ids = r#""agent_id":{"value":"a"},"task_id":{"value":"t"}"#;
            checked(&format!(
                r#"{{"type":"ACKNOWLEDGE","framework_id":{{"value":"f"}},"acknowledge":{{{ids},{rest}}}}}"#
            ))
        };
        assert_eq!(acknowledge(r#""uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#), Ok(Type::Acknowledge));
        let error = acknowledge(r#""uuid":"AAAA""#).unwrap_err();
        assert!(error.starts_with("Not a valid UUID: acknowledge.uuid"), "{error}");
        let operation = |rest: &str| {
            let id = r#""operation_id":{"value":"o"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA==""#;
            checked(&format!(
                r#"{{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":{{"value":"f"}},"acknowledge_operation_status":{{{id}{rest}}}}}"#
            ))
        };
        assert!(operation("").unwrap_err().contains("'agent_id'"));
        assert!(operation(r#","agent_id":{"value":"a"}"#).is_ok());
    }
}
