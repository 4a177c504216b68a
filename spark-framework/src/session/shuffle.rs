//! A shuffle service as a Mezz task.

use std::time::Duration;

use mezz_proto::{
    ids::{AgentId, TaskId},
    resources::{Dialect, Scalar},
    v1,
};
use tracing::warn;

use super::{
    RegisterError, exit,
    launch::{App, Filler, variable},
};
use crate::{
    policy::{Exit, ExitKind, Served, ServiceNo, ServiceSize},
    protocol::{Register, ShuffleSettings},
};

/// Before a service's number in its task's id; executors' ids are bare numbers.
const PREFIX: &str = "shuffle-";

/// It has nothing to put in order.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Starts the service again where it was, with what it remembers there of executors;
/// one that ends five times in a row, each time within a minute, is given up with its task.
const SUPERVISE: &str = r#"n=0
while [ $n -lt 5 ]; do
  t=$(date +%s)
  "$@"
  s=$?
  if [ $(($(date +%s) - t)) -ge 60 ]; then n=0; fi
  n=$((n + 1))
  echo "the shuffle service ended with status $s" >&2
  sleep 1
done
exit $s"#;

/// What the policy has to know of the services that are wanted.
pub(super) fn size(register: &Register) -> Result<Option<ServiceSize>, RegisterError> {
    let Some(settings) = &register.shuffle else { return Ok(None) };
    let setting = "spark.mezz.shuffle.service.cores";
    let cpus = Scalar::from_f64(settings.cpus)
        .map_err(|_| RegisterError::Cores(setting, settings.cpus))?;
    Ok(Some(ServiceSize { cpus, mem_mib: settings.mem }))
}

/// The service whose task this is.
pub(super) fn number(task: &str) -> Option<ServiceNo> {
    task.strip_prefix(PREFIX)?.parse().ok().map(ServiceNo)
}

/// The task of this service.
pub(super) fn task_id(service: ServiceNo) -> TaskId {
    TaskId::new(format!("{PREFIX}{service}"))
}

/// The task that runs this service, where it is to be started.
pub(super) fn task(
    app: &App<'_>,
    served: &Served,
    agent: &AgentId,
    role: Option<&str>,
) -> Option<v1::TaskInfo> {
    let service = served.start.as_ref()?;
    let ShuffleSettings { command, env, .. } = app.register.shuffle.as_ref()?;
    let filler =
        Filler::new(&[("{{SHUFFLE_PORT}}", &served.port.to_string()), ("{{APP_ID}}", app.id)]);
    let shell = ["/bin/sh", "-c", SUPERVISE, "sh"].map(str::to_owned);
    let argv: Vec<String> =
        shell.into_iter().chain(command.iter().map(|a| filler.fill(a))).collect();
    let variables = env.iter().map(|(k, v)| variable(k.clone(), filler.fill(v))).collect();
    Some(v1::TaskInfo {
        name: format!("{} shuffle service {}", app.register.app_name, service.no),
        task_id: task_id(service.no).into(),
        agent_id: agent.into(),
        resources: service.resources.to_proto(Dialect::Refined, role),
        command: Some(v1::CommandInfo {
            value: argv.first().cloned(),
            arguments: argv,
            shell: Some(false),
            environment: Some(v1::Environment { variables }),
            ..Default::default()
        }),
        kill_policy: Some(v1::KillPolicy {
            grace_period: Some(v1::DurationInfo {
                nanoseconds: i64::try_from(KILL_GRACE.as_nanos()).unwrap_or(i64::MAX),
            }),
        }),
        ..Default::default()
    })
}

/// What a status of a service's task says.
pub(super) enum Meaning {
    /// It runs there.
    Running(AgentId),
    /// It is gone.
    Gone(Exit),
    /// Nothing that we did not know.
    Nothing,
}

/// `mem_mib` is what the service was given.
pub(super) fn meaning(service: ServiceNo, status: &v1::TaskStatus, mem_mib: u64) -> Meaning {
    match exit::meaning(status, Some(mem_mib)) {
        exit::Meaning::Alive => {
            status.agent_id.as_ref().map_or(Meaning::Nothing, |a| Meaning::Running(a.into()))
        }
        exit::Meaning::Gone(exit) => {
            let exit = match exit.kind {
                ExitKind::OutOfMemory => Exit {
                    reason: format!(
                        "killed for exceeding its memory of {mem_mib} MiB; raise \
                         spark.mezz.shuffle.service.memory"
                    ),
                    ..exit
                },
                _ => exit,
            };
            warn!(service = service.0, reason = exit.reason, "a shuffle service ended");
            Meaning::Gone(exit)
        }
        exit::Meaning::Nothing => Meaning::Nothing,
    }
}
