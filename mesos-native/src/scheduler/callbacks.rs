//! The methods of `org.apache.mesos.Scheduler`, called in order by one thread.

use std::sync::{Arc, atomic::Ordering};

use jni::{
    Env, JValue, jni_sig, jni_str,
    objects::{JObject, JString},
    refs::Global,
};
use mezz_sdk::{
    scheduler::{Event, Events},
    v1,
};

use super::Driver;
use crate::{
    convert,
    error::Error,
    java::{Messages, call_back, start_thread},
};

const MESSAGES: [&str; 7] =
    ["FrameworkID", "MasterInfo", "Offer", "OfferID", "TaskStatus", "ExecutorID", "SlaveID"];

/// What the callbacks' thread has.
struct Callbacks {
    driver: Arc<Driver>,
    /// The `MesosSchedulerDriver`.
    this: Global<JObject<'static>>,
    /// The program's `Scheduler`.
    scheduler: Global<JObject<'static>>,
    messages: Messages,
    /// Whether `registered` was called.
    registered: bool,
}

/// Starts the thread that hands events to the program's `Scheduler`.
pub(super) fn start(
    env: &mut Env<'_>,
    driver: Arc<Driver>,
    this: &JObject<'_>,
    scheduler: &JObject<'_>,
    events: Events,
) -> Result<(), Error> {
    let to_abort = driver.clone();
    let mut callbacks = Callbacks {
        driver,
        this: env.new_global_ref(this)?,
        scheduler: env.new_global_ref(scheduler)?,
        messages: Messages::load(env, &MESSAGES)?,
        registered: false,
    };
    let body = move |env: &mut Env<'_>| callbacks.hand_out(env, events);
    // Of one that ended as it should nothing runs any more.
    start_thread(env, c"mezz-scheduler", scheduler, body, move || drop(to_abort.abort()))
}

/// `Scheduler.error`, also from `start` when the driver cannot even begin.
pub(super) fn error(
    env: &mut Env<'_>,
    this: &JObject<'_>,
    scheduler: &JObject<'_>,
    text: &str,
) -> Result<(), Error> {
    let text = JString::from_str(env, text)?;
    env.call_method(
        scheduler,
        jni_str!("error"),
        jni_sig!("(Lorg/apache/mesos/SchedulerDriver;Ljava/lang/String;)V"),
        &[JValue::Object(this), JValue::Object(&text)],
    )?;
    Ok(())
}

impl Callbacks {
    fn hand_out(&mut self, env: &mut Env<'_>, mut events: Events) {
        let Some(runtime) = self.driver.link.get().map(|link| link.runtime.clone()) else { return };
        while let Some(event) = runtime.block_on(events.next()) {
            let update = match &event {
                Event::Update(status) if self.driver.settings.implicit => {
                    Some(convert::to_acknowledge(status))
                }
                _ => None,
            };
            let driver = self.driver.clone();
            if matches!(event, Event::Subscribed { .. }) {
                driver.connected.store(true, Ordering::Relaxed);
            }
            let Some(callback) = driver.life.callback() else { continue };
            let returned = call_back(env, |env| self.tell(env, event));
            if !returned {
                driver.abort();
            }
            drop(callback);
            if let Some(status) = update.filter(|_| returned) {
                // A driver that the callback aborted or stopped acknowledges nothing more.
                driver.call(|calls| async move { calls.acknowledge(&status).await });
            }
        }
        // Only after a stop, or after an error that was told.
        if self.driver.life.is_running() {
            self.driver.abort();
            let text = "the SDK's driver has ended, which is a defect of libmezzmesos";
            call_back(env, |env| error(env, &self.this, &self.scheduler, text));
        }
    }

    fn tell(&mut self, env: &mut Env<'_>, event: Event) -> Result<(), Error> {
        match event {
            Event::Subscribed { framework_id, master } => {
                self.subscribed(env, &framework_id, &master.unwrap_or_default())
            }
            Event::Offers(offers) => self.offers(env, &offers),
            Event::Rescind(offer) => {
                let offer = self.messages.make(env, "OfferID", &offer)?;
                let signature = jni_sig!(
                    "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$OfferID;)V"
                );
                let arguments = [JValue::Object(&self.this), JValue::Object(&offer)];
                self.call(|s| env.call_method(s, jni_str!("offerRescinded"), signature, &arguments))
            }
            Event::Update(status) => {
                let status = self.messages.make(env, "TaskStatus", &status)?;
                let signature = jni_sig!(
                    "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$TaskStatus;)V"
                );
                let arguments = [JValue::Object(&self.this), JValue::Object(&status)];
                self.call(|s| env.call_method(s, jni_str!("statusUpdate"), signature, &arguments))
            }
            Event::Message { agent_id, executor_id, data } => {
                self.message(env, &agent_id, &executor_id, &data)
            }
            Event::Failure { agent_id: Some(agent), executor_id, status } => {
                self.failure(env, &agent, executor_id.as_ref(), status)
            }
            Event::Failure { agent_id: None, .. } => Ok(()),
            Event::Disconnected { .. } => {
                let was_connected = self.driver.connected.swap(false, Ordering::Relaxed);
                // Attempts that fail are not told: the old API has no word for them.
                if !was_connected {
                    return Ok(());
                }
                let signature = jni_sig!("(Lorg/apache/mesos/SchedulerDriver;)V");
                let arguments = [JValue::Object(&self.this)];
                self.call(|s| env.call_method(s, jni_str!("disconnected"), signature, &arguments))
            }
            Event::Error(text) => {
                // In this order: the program sees a driver that is aborted already.
                self.driver.abort();
                error(env, &self.this, &self.scheduler, &text)
            }
        }
    }

    /// Calls a method that answers nothing.
    fn call<'l>(
        &self,
        method: impl FnOnce(&JObject<'static>) -> jni::errors::Result<jni::JValueOwned<'l>>,
    ) -> Result<(), Error> {
        method(&self.scheduler)?;
        Ok(())
    }

    fn subscribed(
        &mut self,
        env: &mut Env<'_>,
        framework: &v1::FrameworkId,
        master: &v1::MasterInfo,
    ) -> Result<(), Error> {
        let master = self.messages.make(env, "MasterInfo", master)?;
        if std::mem::replace(&mut self.registered, true) {
            let signature = jni_sig!(
                "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$MasterInfo;)V"
            );
            let arguments = [JValue::Object(&self.this), JValue::Object(&master)];
            return self
                .call(|s| env.call_method(s, jni_str!("reregistered"), signature, &arguments));
        }
        let framework = self.messages.make(env, "FrameworkID", framework)?;
        let signature = jni_sig!(
            "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$FrameworkID;Lorg/apache/mesos/Protos$MasterInfo;)V"
        );
        let arguments =
            [JValue::Object(&self.this), JValue::Object(&framework), JValue::Object(&master)];
        self.call(|s| env.call_method(s, jni_str!("registered"), signature, &arguments))
    }

    fn offers(&self, env: &mut Env<'_>, offers: &[v1::Offer]) -> Result<(), Error> {
        let class = env.find_class(jni_str!("java/util/ArrayList"))?;
        let list = env.new_object(class, jni_sig!("()V"), &[])?;
        for offer in offers {
            let offer = self.messages.make(env, "Offer", offer)?;
            let arguments = [JValue::Object(&offer)];
            env.call_method(&list, jni_str!("add"), jni_sig!("(Ljava/lang/Object;)Z"), &arguments)?;
            env.delete_local_ref(offer);
        }
        let signature = jni_sig!("(Lorg/apache/mesos/SchedulerDriver;Ljava/util/List;)V");
        let arguments = [JValue::Object(&self.this), JValue::Object(&list)];
        self.call(|s| env.call_method(s, jni_str!("resourceOffers"), signature, &arguments))
    }

    fn message(
        &self,
        env: &mut Env<'_>,
        agent: &v1::AgentId,
        executor: &v1::ExecutorId,
        data: &[u8],
    ) -> Result<(), Error> {
        let executor = self.messages.make(env, "ExecutorID", executor)?;
        let agent = self.messages.make(env, "SlaveID", agent)?;
        let data = env.byte_array_from_slice(data)?;
        let signature = jni_sig!(
            "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$ExecutorID;Lorg/apache/mesos/Protos$SlaveID;[B)V"
        );
        let arguments = [
            JValue::Object(&self.this),
            JValue::Object(&executor),
            JValue::Object(&agent),
            JValue::Object(&data),
        ];
        self.call(|s| env.call_method(s, jni_str!("frameworkMessage"), signature, &arguments))
    }

    /// Of an executor, or without one of the whole agent.
    fn failure(
        &self,
        env: &mut Env<'_>,
        agent: &v1::AgentId,
        executor: Option<&v1::ExecutorId>,
        status: Option<i32>,
    ) -> Result<(), Error> {
        let agent = self.messages.make(env, "SlaveID", agent)?;
        let Some(executor) = executor else {
            let signature =
                jni_sig!("(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$SlaveID;)V");
            let arguments = [JValue::Object(&self.this), JValue::Object(&agent)];
            return self.call(|s| env.call_method(s, jni_str!("slaveLost"), signature, &arguments));
        };
        let executor = self.messages.make(env, "ExecutorID", executor)?;
        let signature = jni_sig!(
            "(Lorg/apache/mesos/SchedulerDriver;Lorg/apache/mesos/Protos$ExecutorID;Lorg/apache/mesos/Protos$SlaveID;I)V"
        );
        let arguments = [
            JValue::Object(&self.this),
            JValue::Object(&executor),
            JValue::Object(&agent),
            JValue::Int(status.unwrap_or(-1)),
        ];
        self.call(|s| env.call_method(s, jni_str!("executorLost"), signature, &arguments))
    }
}
