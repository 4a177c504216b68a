//! The native methods of `org.apache.mesos.MesosSchedulerDriver`.

use std::sync::Arc;

use jni::{
    Env, EnvUnowned, jni_sig, jni_str,
    objects::{JByteArray, JObject, JString},
    sys::jboolean,
};
use mezz_sdk::v1;
use nix::unistd;
use tracing::warn;

use super::{Driver, Settings, callbacks};
use crate::{
    convert,
    error::Error,
    handles::Handles,
    java::{self, enter},
    life::Status,
    masters,
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

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_initialize")]
extern "system" fn initialize<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) {
    enter(&mut env, |env| {
        let driver = Driver::new(settings(env, &this)?);
        java::set_handle(env, &this, DRIVERS.add(driver))
    });
}

/// What the Java constructor was given.
fn settings(env: &mut Env<'_>, this: &JObject<'_>) -> Result<Settings, Error> {
    let framework_type = jni_sig!("Lorg/apache/mesos/Protos$FrameworkInfo;");
    let framework = env.get_field(this, jni_str!("framework"), framework_type)?.l()?;
    let mut framework: v1::FrameworkInfo = java::read(env, "framework", &framework)?;
    let credential_type = jni_sig!("Lorg/apache/mesos/Protos$Credential;");
    let credential = env.get_field(this, jni_str!("credential"), credential_type)?.l()?;
    let credential: Option<v1::Credential> = java::read_if_any(env, "credential", &credential)?;
    convert::complete(&mut framework, credential.as_ref(), user, || {
        unistd::gethostname().ok()?.into_string().ok()
    })?;
    let master = env.get_field(this, jni_str!("master"), jni_sig!("Ljava/lang/String;"))?.l()?;
    if master.is_null() {
        return Err(Error::Null("master"));
    }
    let master = env.cast_local::<JString<'_>>(master)?.try_to_string(env)?;
    let implicit = env.get_field(this, jni_str!("implicitAcknowledgements"), jni_sig!("Z"))?.z()?;
    let roles_type = jni_sig!("Ljava/util/Collection;");
    let suppressed_roles = match env.get_field(this, jni_str!("suppressedRoles"), roles_type) {
        Ok(roles) => roles.l()?,
        // An older jar.
        Err(jni::errors::Error::FieldNotFound { .. }) => JObject::null(),
        Err(error) => return Err(error.into()),
    };
    let suppressed_roles = match suppressed_roles.is_null() {
        true => Vec::new(),
        false => java::read_strings(env, "suppressedRoles", &suppressed_roles)?,
    };
    let credential = credential.and_then(convert::proof);
    Ok(Settings { master, framework, credential, suppressed_roles, implicit })
}

/// The user that this process runs as.
fn user() -> Result<String, Error> {
    let uid = unistd::getuid();
    let known = unistd::User::from_uid(uid).ok().flatten();
    known.map(|user| user.name).ok_or(Error::NoUser(uid.as_raw()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_finalize")]
extern "system" fn finalize<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) {
    enter(&mut env, |env| {
        // One that runs is not collected: its callbacks' thread knows it.
        let handle = java::handle_of(env, &this)?;
        drop(DRIVERS.remove(handle));
        java::set_handle(env, &this, 0)
    });
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_start")]
extern "system" fn start<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        if !driver.life.start() {
            return Ok(driver.life.status());
        }
        let scheduler_type = jni_sig!("Lorg/apache/mesos/Scheduler;");
        let scheduler = env.get_field(&this, jni_str!("scheduler"), scheduler_type)?.l()?;
        let masters = driver.masters().map_err(|error| {
            let master = masters::shown(&driver.settings.master);
            format!("Failed to create a master detector for '{master}': {error}")
        });
        let events =
            masters.and_then(|masters| driver.connect(masters).map_err(|error| error.to_string()));
        let begun = match events {
            Ok(events) => callbacks::start(env, driver.clone(), &this, &scheduler, events),
            Err(text) => {
                driver.abort();
                warn!("{text}");
                callbacks::error(env, &this, &scheduler, &text)
            }
        };
        if begun.is_err() {
            driver.abort();
        }
        driver.settle();
        begun.map(|()| driver.life.status())
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_stop")]
extern "system" fn stop<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    failover: jboolean,
) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.stop(failover)))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_abort")]
extern "system" fn abort<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.abort()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_join")]
extern "system" fn join<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.life.join()))
}

/// Masters do nothing with requests for resources (rule 20), so none is sent.
#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_requestResources")]
extern "system" fn request_resources<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    _requests: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| Ok(driver.life.status()))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_launchTasks__Lorg_apache_mesos_Protos_00024OfferID_2Ljava_util_Collection_2Lorg_apache_mesos_Protos_00024Filters_2")]
extern "system" fn launch_on_one<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    offer: JObject<'l>,
    tasks: JObject<'l>,
    filters: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let offers = vec![java::read(env, "offerId", &offer)?];
        let tasks = java::read_all(env, "tasks", &tasks)?;
        let filters = java::read_if_any(env, "filters", &filters)?;
        Ok(driver.accept(offers, convert::launch(tasks), filters))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_launchTasks__Ljava_util_Collection_2Ljava_util_Collection_2Lorg_apache_mesos_Protos_00024Filters_2")]
extern "system" fn launch_on_many<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    offers: JObject<'l>,
    tasks: JObject<'l>,
    filters: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let offers = java::read_all(env, "offerIds", &offers)?;
        let tasks = java::read_all(env, "tasks", &tasks)?;
        let filters = java::read_if_any(env, "filters", &filters)?;
        Ok(driver.accept(offers, convert::launch(tasks), filters))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_acceptOffers")]
extern "system" fn accept_offers<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    offers: JObject<'l>,
    operations: JObject<'l>,
    filters: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let offers = java::read_all(env, "offerIds", &offers)?;
        let operations = java::read_all(env, "operations", &operations)?;
        convert::check(&operations)?;
        let filters = java::read_if_any(env, "filters", &filters)?;
        Ok(driver.accept(offers, operations, filters))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_declineOffer")]
extern "system" fn decline_offer<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    offer: JObject<'l>,
    filters: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let offer = java::read(env, "offerId", &offer)?;
        let filters = java::read_if_any(env, "filters", &filters)?;
        Ok(driver.decline(offer, filters))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_killTask")]
extern "system" fn kill_task<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    task: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let task = java::read(env, "taskId", &task)?;
        Ok(driver.call(|calls| async move { calls.kill(task, None, None).await }))
    })
}

// By their long names, which older jars find as well: newer ones have two of each.
#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_reviveOffers__")]
extern "system" fn revive_offers<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| {
        Ok(driver.call(|calls| async move { calls.revive(&[]).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_reviveOffers__Ljava_util_Collection_2")]
extern "system" fn revive_offers_of_roles<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    roles: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let roles = java::read_strings(env, "roles", &roles)?;
        let Some(roles) = convert::named(roles) else { return Ok(driver.life.status()) };
        Ok(driver.call(|calls| async move { calls.revive(&roles).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_suppressOffers__")]
extern "system" fn suppress_offers<'l>(mut env: EnvUnowned<'l>, this: JObject<'l>) -> JObject<'l> {
    answer(&mut env, &this, |_, driver| {
        Ok(driver.call(|calls| async move { calls.suppress(&[]).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_suppressOffers__Ljava_util_Collection_2")]
extern "system" fn suppress_offers_of_roles<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    roles: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let roles = java::read_strings(env, "roles", &roles)?;
        let Some(roles) = convert::named(roles) else { return Ok(driver.life.status()) };
        Ok(driver.call(|calls| async move { calls.suppress(&roles).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_updateFramework")]
extern "system" fn update_framework<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    framework: JObject<'l>,
    suppressed_roles: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| update(env, &driver, &framework, &suppressed_roles, None))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_updateFrameworkWithConstraints")]
extern "system" fn update_framework_with_constraints<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    framework: JObject<'l>,
    suppressed_roles: JObject<'l>,
    constraints: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let constraints = java::read_if_any(env, "offerConstraints", &constraints)?;
        update(env, &driver, &framework, &suppressed_roles, constraints)
    })
}

/// Without constraints, those of before are lifted, as with libmesos.
fn update(
    env: &mut Env<'_>,
    driver: &Driver,
    framework: &JObject<'_>,
    suppressed_roles: &JObject<'_>,
    constraints: Option<v1::scheduler::OfferConstraints>,
) -> Result<Status, Error> {
    let mut framework = java::read(env, "frameworkInfo", framework)?;
    convert::complete_from(&mut framework, &driver.settings.framework);
    let suppressed = java::read_strings(env, "suppressedRoles", suppressed_roles)?;
    Ok(driver.call(|calls| async move {
        calls.update_framework(framework, &suppressed, constraints).await
    }))
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_acknowledgeStatusUpdate")]
extern "system" fn acknowledge_status_update<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    status: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        // libmesos ends the process here.
        if driver.life.is_running() && driver.settings.implicit {
            return Err(Error::ImplicitAcknowledgements);
        }
        let status: v1::TaskStatus = java::read(env, "taskStatus", &status)?;
        if !convert::has_uuid(&status) {
            // As Mesos' masters do.
            warn!(task = status.task_id.value, "an acknowledgement whose uuid is none; dropped");
            return Ok(driver.life.status());
        }
        Ok(driver.call(|calls| async move { calls.acknowledge(&status).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_sendFrameworkMessage")]
extern "system" fn send_framework_message<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    executor: JObject<'l>,
    agent: JObject<'l>,
    data: JByteArray<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let executor = java::read(env, "executorId", &executor)?;
        let agent = java::read(env, "slaveId", &agent)?;
        let data = java::read_bytes(env, "data", &data)?;
        Ok(driver.call(|calls| async move { calls.message(agent, executor, data).await }))
    })
}

#[unsafe(export_name = "Java_org_apache_mesos_MesosSchedulerDriver_reconcileTasks")]
extern "system" fn reconcile_tasks<'l>(
    mut env: EnvUnowned<'l>,
    this: JObject<'l>,
    statuses: JObject<'l>,
) -> JObject<'l> {
    answer(&mut env, &this, |env, driver| {
        let tasks = java::read_all::<v1::TaskStatus>(env, "statuses", &statuses)?;
        let tasks: Vec<_> = tasks.into_iter().map(convert::asked_for).collect();
        Ok(driver.call(|calls| async move { calls.reconcile(tasks).await }))
    })
}
