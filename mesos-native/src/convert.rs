//! What the old API means in the v1 API, where it takes more than the same bytes. Pure.

use mezz_sdk::{Credential, v1};
use tracing::warn;

use crate::error::Error;

/// What an update's `uuid` has.
const UUID_BYTES: usize = 16;

/// `launchTasks` as operations; without tasks the offers are given back.
pub(crate) fn launch(tasks: Vec<v1::TaskInfo>) -> Vec<v1::offer::Operation> {
    if tasks.is_empty() {
        return Vec::new();
    }
    vec![v1::offer::Operation {
        r#type: Some(v1::offer::operation::Type::Launch as i32),
        launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
        ..Default::default()
    }]
}

/// Fills in what a program may leave to libmesos: the user and the host's name; and, as a
/// master does that authenticates, the credential's principal (rule 6). Fails when the user
/// is not known: no other may take its place, for the tasks run as this user.
pub(crate) fn complete(
    framework: &mut v1::FrameworkInfo,
    credential: Option<&v1::Credential>,
    user: impl FnOnce() -> Result<String, Error>,
    hostname: impl FnOnce() -> Option<String>,
) -> Result<(), Error> {
    if framework.user.is_empty() {
        framework.user = user()?;
    }
    if framework.hostname.as_ref().is_none_or(String::is_empty) {
        framework.hostname = hostname();
    }
    if framework.principal.is_none() {
        framework.principal = credential.map(|c| c.principal.clone());
    }
    Ok(())
}

/// What proves the principal to a master that asks; one without a secret proves nothing. One
/// that no header can hold is not sent: a master that does not ask takes the framework.
pub(crate) fn proof(credential: v1::Credential) -> Option<Credential> {
    let known = Credential::new(credential.principal, credential.secret?);
    known.inspect_err(|error| warn!("the framework's credential is not used: {error}")).ok()
}

/// An update of a framework: what the driver filled in at its start stays, unless the program
/// says otherwise. Without its principal, which may not change, the master would refuse it and
/// the framework would end.
pub(crate) fn complete_from(framework: &mut v1::FrameworkInfo, before: &v1::FrameworkInfo) {
    if framework.user.is_empty() {
        framework.user.clone_from(&before.user);
    }
    if framework.hostname.as_ref().is_none_or(String::is_empty) {
        framework.hostname.clone_from(&before.hostname);
    }
    if framework.principal.is_none() {
        framework.principal.clone_from(&before.principal);
    }
}

/// The roles that `suppressOffers` or `reviveOffers` names; of none nothing changes, while the
/// SDK would take all of the framework's.
pub(crate) fn named(roles: Vec<String>) -> Option<Vec<String>> {
    (!roles.is_empty()).then_some(roles)
}

/// The tasks of `reconcileTasks`, of which only the ids are used.
pub(crate) fn asked_for(status: v1::TaskStatus) -> (v1::TaskId, Option<v1::AgentId>) {
    (status.task_id, status.agent_id.filter(|id| !id.value.is_empty()))
}

/// Whether a master takes these operations. It ends the subscription for those that lack what
/// their type names; operations that it does not know it answers.
pub(crate) fn check(operations: &[v1::offer::Operation]) -> Result<(), Error> {
    use v1::offer::operation::Type;
    for (index, operation) in operations.iter().enumerate() {
        let field = match operation.r#type() {
            Type::Launch if operation.launch.is_none() => "launch",
            Type::LaunchGroup if operation.launch_group.is_none() => "launch_group",
            _ => continue,
        };
        return Err(Error::Operation { index, field });
    }
    Ok(())
}

/// Whether it can be acknowledged: masters end the subscription for another `uuid`. None at
/// all needs no acknowledgement.
pub(crate) fn has_uuid(status: &v1::TaskStatus) -> bool {
    status.uuid.as_ref().is_none_or(|uuid| uuid.is_empty() || uuid.len() == UUID_BYTES)
}

/// What an acknowledgement needs of an update, and not its `data`.
pub(crate) fn to_acknowledge(status: &v1::TaskStatus) -> v1::TaskStatus {
    v1::TaskStatus {
        task_id: status.task_id.clone(),
        agent_id: status.agent_id.clone(),
        uuid: status.uuid.clone(),
        ..Default::default()
    }
}

/// In place of an update that is too large. A result that cannot be told has failed.
pub(crate) fn shortened(status: &v1::TaskStatus, why: String) -> v1::TaskStatus {
    let state = match status.state() {
        v1::TaskState::TaskFinished => v1::TaskState::TaskFailed,
        other => other,
    };
    v1::TaskStatus {
        task_id: status.task_id.clone(),
        state: state as i32,
        message: Some(why),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_task_is_no_operation() {
        assert!(launch(vec![]).is_empty());
        let operations = launch(vec![v1::TaskInfo::default(), v1::TaskInfo::default()]);
        assert_eq!(operations.len(), 1);
        assert_eq!(operations[0].launch.as_ref().unwrap().task_infos.len(), 2);
    }

    #[test]
    fn fills_in_only_what_is_left_out() {
        let credential = v1::Credential { principal: "spark".into(), secret: None };
        let mut info = v1::FrameworkInfo::default();
        complete(&mut info, Some(&credential), || Ok("me".into()), || Some("here".into())).unwrap();
        assert_eq!((info.user.as_str(), info.hostname.as_deref()), ("me", Some("here")));
        assert_eq!(info.principal.as_deref(), Some("spark"));
        let before = info.clone();
        complete(&mut info, None, || Ok("x".into()), || None).unwrap();
        assert_eq!(info, before);
    }

    #[test]
    fn an_update_keeps_what_the_driver_filled_in() {
        let before = v1::FrameworkInfo {
            user: "me".into(),
            hostname: Some("here".into()),
            principal: Some("spark".into()),
            ..Default::default()
        };
        let mut update = v1::FrameworkInfo { name: "new".into(), ..Default::default() };
        complete_from(&mut update, &before);
        assert_eq!(update, v1::FrameworkInfo { name: "new".into(), ..before.clone() });
        let mut other = v1::FrameworkInfo { principal: Some("p".into()), ..Default::default() };
        complete_from(&mut other, &before);
        assert_eq!(other.principal.as_deref(), Some("p"), "the master's to refuse");
    }

    #[test]
    fn no_role_is_not_every_role() {
        assert_eq!(named(vec![]), None);
        assert_eq!(named(vec!["a".into()]), Some(vec!["a".into()]));
    }

    #[test]
    fn an_unknown_user_is_no_other_user() {
        let mut info = v1::FrameworkInfo::default();
        let refused = complete(&mut info, None, || Err(Error::NoUser(12345)), || None);
        assert!(refused.unwrap_err().to_string().contains("12345"));
        assert_eq!(info.user, "");
    }

    #[test]
    fn a_result_that_cannot_be_told_has_failed() {
        let of = |state: v1::TaskState| {
            let status = v1::TaskStatus {
                task_id: v1::TaskId { value: "t".into() },
                state: state as i32,
                data: Some(vec![1]),
                ..Default::default()
            };
            shortened(&status, "too large".into())
        };
        let failed = of(v1::TaskState::TaskFinished);
        assert_eq!((failed.state(), failed.message()), (v1::TaskState::TaskFailed, "too large"));
        assert_eq!((failed.task_id.value.as_str(), failed.data), ("t", None));
        assert_eq!(of(v1::TaskState::TaskRunning).state(), v1::TaskState::TaskRunning);
    }

    #[test]
    fn what_a_master_would_end_the_subscription_for_is_found() {
        use v1::offer::operation::{Launch, Type};
        let of = |kind: i32, launch| v1::offer::Operation {
            r#type: Some(kind),
            launch,
            ..Default::default()
        };
        let launch = of(Type::Launch as i32, Some(Launch::default()));
        assert!(check(&[launch.clone(), of(Type::Reserve as i32, None), of(999, None)]).is_ok());
        let error = check(&[launch, of(Type::Launch as i32, None)]).unwrap_err().to_string();
        assert!(error.starts_with("operations[1].launch: "), "{error}");
        assert!(check(&[of(Type::LaunchGroup as i32, None)]).is_err());
        let status = |uuid| v1::TaskStatus { uuid, ..Default::default() };
        assert!(has_uuid(&status(None)) && has_uuid(&status(Some(vec![1; 16]))));
        assert!(!has_uuid(&status(Some(vec![1; 3]))));
    }

    #[test]
    fn an_empty_agent_id_is_none() {
        let status =
            v1::TaskStatus { agent_id: Some(v1::AgentId::default()), ..Default::default() };
        assert_eq!(asked_for(status).1, None);
    }

    #[test]
    fn a_credential_proves_its_principal() {
        let of = |principal: &str, secret: Option<&str>| {
            let secret = secret.map(str::to_owned);
            proof(v1::Credential { principal: principal.to_owned(), secret })
        };
        assert_eq!(of("p", Some("s")), Some(Credential::new("p", "s").unwrap()));
        for (principal, secret) in
            [("p", None), ("p", Some("")), ("", Some("s")), ("a:b", Some("s"))]
        {
            assert_eq!(of(principal, secret), None, "{principal}");
        }
    }
}
