//! The native methods of `org.apache.mesos.MesosExecutorDriver`.

use std::sync::Arc;

use jni::{
    Env, EnvUnowned, jni_sig, jni_str,
    objects::{JByteArray, JObject},
};
use mezz_sdk::v1;

use super::{Driver, callbacks};
use crate::{
    error::Error,
    handles::Handles,
    java::{self, enter},
    life::Status,
};

static DRIVERS: Handles<Driver> = Handles::new();

/// A method that answers the driver's status.
fn answer<'l>(
    env: &mut EnvUnowned<'l>,
    this: &JObject<'l>,
    method: impl FnOnce(&mut Env<'l>, Arc<Driver>) -> Result<Status, Error>,
) -> JObject<'l> {
    enter(env, |env| {
        let handle = java::handle_of(env, this)?;
        let driver = DRIVERS.get(handle).ok_or(Error::NotInitialized)?;
        let status = method(env, driver)?;
        java::status(env, status)
    })
}

/// The program's `Executor`.
fn executor<'l>(env: &mut Env<'l>, this: &JObject<'_>) -> Result<JObject<'l>, Error> {
    let executor_type = jni_sig!("Lorg/apache/mesos/Executor;");
    Ok(env.get_field(this, jni_str!("executor"), executor_type)?.l()?)
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_initialize")]
extern "system" fn initialize<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) {
    enter(&mut env, |env| java::set_handle(env, &this, DRIVERS.add(Driver::new())));
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_finalize")]
extern "system" fn finalize<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) {
    enter(&mut env, |env| {
        // One that runs is not collected: its callbacks' thread knows it.
        let handle = java::handle_of(env, &this)?;
        drop(DRIVERS.remove(handle));
        java::set_handle(env, &this, 0)
    });
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_start")]
extern "system" fn start<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        if !driver.life.start() {
            return Ok(driver.life.status());
        }
        let begun = driver.connect().and_then(|events| {
            let executor = executor(env, &this)?;
            callbacks::start(env, driver.clone(), &this, &executor, events)
        });
        if begun.is_err() {
            driver.abort();
        }
        driver.settle();
        begun.map(|()| driver.life.status())
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_stop")]
extern "system" fn stop<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.stop()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_abort")]
extern "system" fn abort<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.abort()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_join")]
extern "system" fn join<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.life.join()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_sendStatusUpdate")]
extern "system" fn send_status_update<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    status: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let status: v1::TaskStatus = java::read(env, "taskStatus", &status)?;
        // Agents take no such update (rule 37).
        if status.state() == v1::TaskState::TaskStaging && driver.life.is_running() {
            driver.abort();
            let executor = executor(env, &this)?;
            let text = "Attempted to send TASK_STAGING status update";
            callbacks::error(env, &this, &executor, text)?;
            return Ok(driver.life.status());
        }
        Ok(driver.update(status))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosExecutorDriver_sendFrameworkMessage")]
extern "system" fn send_framework_message<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    data: JByteArray<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let data = java::read_bytes(env, "data", &data)?;
        Ok(driver.message(data))
    })
}
