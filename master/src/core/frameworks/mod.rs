//! Frameworks: their calls, their coming and going.

mod connection;
pub(in crate::core) mod events;
mod membership;
mod operations;
mod removal;
mod subscribe;
mod update;

use mezz_proto::{
    time::Time,
    v1::scheduler::{Call, call::Type},
};

pub use subscribe::master_info;

use super::{CallError, CallReply, ConnectionId, Core, Effects, validate::check_call};

/// Where the framework of an id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or it has ended.
    Unknown,
    /// It has ended, and that may not be written yet: whoever hears of it waits until it is.
    Ended,
    /// It is not subscribed at the moment.
    Away,
    /// It is subscribed.
    Subscribed(ConnectionId),
}

impl Core {
    /// Where the framework of this id stands. For calls that come by themselves, to be
    /// asked in the same turn in which [`Event::SchedulerRequest`](super::Event) is handled.
    pub fn standing(&self, framework: &str) -> Standing {
        match self.framework_ids.get(framework) {
            None if self.removal_may_wait(framework) => Standing::Ended,
            None => Standing::Unknown,
            Some(&key) => {
                self.frameworks[key].connection().map_or(Standing::Away, Standing::Subscribed)
            }
        }
    }

    /// Who the framework of this id is, if there is one and it says.
    pub fn principal(&self, framework: &str) -> Option<&str> {
        let key = self.framework_ids.get(framework)?;
        self.frameworks[*key].info.principal.as_deref()
    }

    /// A call of a framework. One that breaks the protocol ends the connection.
    pub(super) fn scheduler_call(
        &mut self,
        now: Time,
        connection: ConnectionId,
        call: Call,
        out: &mut Effects,
    ) {
        if let Err(error) = self.dispatch(now, connection, call, out) {
            self.counters.invalid_calls += 1;
            out.close_scheduler(connection, Some(error));
            self.scheduler_disconnected(now, connection, out);
        }
    }

    /// A call that came by itself. One that breaks the protocol has done nothing.
    pub(super) fn scheduler_request(
        &mut self,
        now: Time,
        connection: ConnectionId,
        call: Call,
        out: &mut Effects,
    ) -> Result<CallReply, CallError> {
        let done = self.dispatch(now, connection, call, out);
        self.counters.invalid_calls += u64::from(done.is_err());
        done
    }

    fn dispatch(
        &mut self,
        now: Time,
        connection: ConnectionId,
        call: Call,
        out: &mut Effects,
    ) -> Result<CallReply, CallError> {
        let kind = check_call(&call).map_err(CallError::Invalid)?;
        if kind == Type::Subscribe {
            return self.subscribe(now, connection, call, out).map(|()| CallReply::Done);
        }
        let Some(&key) = self.framework_links.get(&connection) else {
            return Err(CallError::NotAllowed(format!(
                "type: {} is not allowed before SUBSCRIBE on this connection",
                kind.as_str_name()
            )));
        };
        // The connection says whose call it is; an id that is given must agree.
        let id = &self.frameworks[key].id;
        if let Some(given) = call.framework_id.as_ref().filter(|f| f.value != id.as_str()) {
            return Err(CallError::Invalid(format!(
                "framework_id: is `{}`, but this connection is subscribed as `{id}`",
                given.value
            )));
        }
        match kind {
            Type::Accept => self.accept(now, key, part(call.accept, "accept")?, out)?,
            Type::Decline => self.decline(now, key, part(call.decline, "decline")?, out),
            Type::Revive => self.revive(now, key, call.revive.unwrap_or_default().roles, out),
            Type::Suppress => self.suppress(key, call.suppress.unwrap_or_default().roles, out),
            Type::Kill => self.kill(now, key, part(call.kill, "kill")?, out),
            Type::Shutdown => self.shutdown_executor(key, part(call.shutdown, "shutdown")?, out),
            Type::Acknowledge => {
                self.acknowledge(now, key, part(call.acknowledge, "acknowledge")?, out)?;
            }
            Type::Reconcile => {
                self.reconcile(now, key, part(call.reconcile, "reconcile")?.tasks, out);
            }
            Type::Message => self.message_to_executor(key, part(call.message, "message")?, out),
            Type::UpdateFramework => {
                let update = part(call.update_framework, "update_framework")?;
                self.update_framework(now, key, update, out)?;
            }
            Type::Teardown => self.teardown(now, key, out),
            Type::ReconcileOperations => {
                let asked = part(call.reconcile_operations, "reconcile_operations")?;
                return Ok(CallReply::Operations(self.reconcile_operations(key, asked, out)));
            }
            // Rule 20: REQUEST does nothing. There are no inverse offers and no
            // operations with updates, so there is nothing to answer to.
            Type::Request
            | Type::AcceptInverseOffers
            | Type::DeclineInverseOffers
            | Type::AcknowledgeOperationStatus => {}
            Type::Unknown | Type::Subscribe => {
                return Err(CallError::Invalid(
                    "type: must be one of the types of mesos.v1.scheduler.Call".to_owned(),
                ));
            }
        }
        Ok(CallReply::Done)
    }
}

/// The part of a call that its type calls for; [`check_call`] has found it there.
fn part<T>(value: Option<T>, field: &str) -> Result<T, CallError> {
    value.ok_or_else(|| CallError::Invalid(format!("Expecting '{field}' to be present")))
}
