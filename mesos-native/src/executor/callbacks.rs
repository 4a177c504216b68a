//! The methods of `org.apache.mesos.Executor`, called in order by one thread.

use std::sync::Arc;

use jni::{
    Env, JValue, jni_sig, jni_str,
    objects::{JObject, JString},
    refs::Global,
};
use mezz_sdk::{
    executor::{Event, Events},
    v1,
};

use super::Driver;
use crate::{
    error::Error,
    java::{Messages, call_back, start_thread},
    life::Status,
};

const MESSAGES: [&str; 5] = ["ExecutorInfo", "FrameworkInfo", "SlaveInfo", "TaskInfo", "TaskID"];

/// What the callbacks' thread has.
struct Callbacks {
    driver: Arc<Driver>,
    /// The `MesosExecutorDriver`.
    this: Global<JObject<'static>>,
    /// The program's `Executor`.
    executor: Global<JObject<'static>>,
    messages: Messages,
    /// Whether `registered` was called.
    registered: bool,
    /// Whether `disconnected` was not called since.
    connected: bool,
}

/// Starts the thread that hands events to the program's `Executor`.
pub(super) fn start(
    env: &mut Env<'_>,
    driver: Arc<Driver>,
    this: &JObject<'_>,
    executor: &JObject<'_>,
    events: Events,
) -> Result<(), Error> {
    let to_abort = driver.clone();
    let mut callbacks = Callbacks {
        driver,
        this: env.new_global_ref(this)?,
        executor: env.new_global_ref(executor)?,
        messages: Messages::load(env, &MESSAGES)?,
        registered: false,
        connected: false,
    };
    let body = move |env: &mut Env<'_>| callbacks.hand_out(env, events);
    start_thread(env, c"mezz-executor", executor, body, move || to_abort.callbacks_ended())
}

/// `Executor.error`.
pub(super) fn error(
    env: &mut Env<'_>,
    this: &JObject<'_>,
    executor: &JObject<'_>,
    text: &str,
) -> Result<(), Error> {
    let text = JString::from_str(env, text)?;
    env.call_method(
        executor,
        jni_str!("error"),
        jni_sig!("(Lorg/apache/mesos/ExecutorDriver;Ljava/lang/String;)V"),
        &[JValue::Object(this), JValue::Object(&text)],
    )?;
    Ok(())
}

impl Callbacks {
    fn hand_out(&mut self, env: &mut Env<'_>, mut events: Events) {
        let Some(runtime) = self.driver.link.get().map(|link| link.runtime.clone()) else { return };
        while let Some(event) = runtime.block_on(events.next()) {
            // Also of a driver that was aborted: its tasks have to end.
            let shuts_down = event == Event::Shutdown;
            let driver = self.driver.clone();
            if let Some(callback) = driver.callback() {
                if !call_back(env, |env| self.tell(env, event)) {
                    driver.abort();
                }
                drop(callback);
            }
            // A program that has stopped its driver ends by itself, when it wants.
            if shuts_down && driver.life.status() != Status::Stopped {
                driver.shut_down();
            }
        }
        // Only after a stop, a shutdown, or an error that was told.
        if self.driver.callbacks_ended() {
            let text = "the SDK's driver has ended, which is a defect of libmezzmesos";
            call_back(env, |env| error(env, &self.this, &self.executor, text));
        }
    }

    fn tell(&mut self, env: &mut Env<'_>, event: Event) -> Result<(), Error> {
        match event {
            Event::Subscribed { executor, framework, agent } => {
                self.connected = true;
                self.subscribed(env, &executor, &framework, &agent)
            }
            Event::Launch(task) => self.launch(env, &task),
            // What the old API has no call for; the tasks are the same.
            Event::LaunchGroup(tasks) => tasks.iter().try_for_each(|task| self.launch(env, task)),
            Event::Kill { task_id, .. } => {
                let task = self.messages.make(env, "TaskID", &task_id)?;
                let signature = jni_sig!(
                    "(Lorg/apache/mesos/ExecutorDriver;Lorg/apache/mesos/Protos$TaskID;)V"
                );
                let arguments = [JValue::Object(&self.this), JValue::Object(&task)];
                env.call_method(&self.executor, jni_str!("killTask"), signature, &arguments)?;
                Ok(())
            }
            Event::Message(data) => {
                let data = env.byte_array_from_slice(&data)?;
                let signature = jni_sig!("(Lorg/apache/mesos/ExecutorDriver;[B)V");
                let arguments = [JValue::Object(&self.this), JValue::Object(&data)];
                let name = jni_str!("frameworkMessage");
                env.call_method(&self.executor, name, signature, &arguments)?;
                Ok(())
            }
            Event::Disconnected { .. } => {
                // Attempts that fail are not told: the old API has no word for them.
                if !std::mem::take(&mut self.connected) {
                    return Ok(());
                }
                let signature = jni_sig!("(Lorg/apache/mesos/ExecutorDriver;)V");
                let arguments = [JValue::Object(&self.this)];
                env.call_method(&self.executor, jni_str!("disconnected"), signature, &arguments)?;
                Ok(())
            }
            Event::Shutdown => {
                // Before the call, which may take as long as it wants.
                self.driver.shut_down();
                let signature = jni_sig!("(Lorg/apache/mesos/ExecutorDriver;)V");
                let arguments = [JValue::Object(&self.this)];
                env.call_method(&self.executor, jni_str!("shutdown"), signature, &arguments)?;
                Ok(())
            }
            Event::Error(text) => {
                // In this order: the program sees a driver that is aborted already.
                self.driver.abort();
                error(env, &self.this, &self.executor, &text)
            }
        }
    }

    fn subscribed(
        &mut self,
        env: &mut Env<'_>,
        executor: &v1::ExecutorInfo,
        framework: &v1::FrameworkInfo,
        agent: &v1::AgentInfo,
    ) -> Result<(), Error> {
        let agent = self.messages.make(env, "SlaveInfo", agent)?;
        if std::mem::replace(&mut self.registered, true) {
            let signature =
                jni_sig!("(Lorg/apache/mesos/ExecutorDriver;Lorg/apache/mesos/Protos$SlaveInfo;)V");
            let arguments = [JValue::Object(&self.this), JValue::Object(&agent)];
            env.call_method(&self.executor, jni_str!("reregistered"), signature, &arguments)?;
            return Ok(());
        }
        let executor = self.messages.make(env, "ExecutorInfo", executor)?;
        let framework = self.messages.make(env, "FrameworkInfo", framework)?;
        let signature = jni_sig!(
            "(Lorg/apache/mesos/ExecutorDriver;Lorg/apache/mesos/Protos$ExecutorInfo;Lorg/apache/mesos/Protos$FrameworkInfo;Lorg/apache/mesos/Protos$SlaveInfo;)V"
        );
        let arguments = [
            JValue::Object(&self.this),
            JValue::Object(&executor),
            JValue::Object(&framework),
            JValue::Object(&agent),
        ];
        env.call_method(&self.executor, jni_str!("registered"), signature, &arguments)?;
        Ok(())
    }

    fn launch(&self, env: &mut Env<'_>, task: &v1::TaskInfo) -> Result<(), Error> {
        let task = self.messages.make(env, "TaskInfo", task)?;
        let signature =
            jni_sig!("(Lorg/apache/mesos/ExecutorDriver;Lorg/apache/mesos/Protos$TaskInfo;)V");
        let arguments = [JValue::Object(&self.this), JValue::Object(&task)];
        env.call_method(&self.executor, jni_str!("launchTask"), signature, &arguments)?;
        env.delete_local_ref(task);
        Ok(())
    }
}
