//! A shuffle service as a Mezz task.

use std::time::Duration;

use mezz_proto::{
    ids::{AgentId, TaskId},
    resources::{Dialect, Scalar},
    v1,
};
use tracing::warn;

use super::{
    Output, RegisterError, exit,
    launch::{App, Filler, variable},
};
use crate::{
    policy::{Exit, ExitKind, Served, ServiceNo, ServiceSize},
    protocol::{Register, ShuffleSettings, ToDriver},
};

/// Before a service's number in its task's id; executors' ids are bare numbers.
const PREFIX: &str = "shuffle-";

/// Stands for the service's port in commands.
const PORT: &str = "{{SHUFFLE_PORT}}";

/// It has nothing to put in order.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// After the last executor has ended, or was ended because its time was over.
const AFTER_EXECUTORS: Duration = Duration::from_secs(10);

/// Starts the service, `$2` and what follows, again where it was, with what it remembers
/// there of executors; one that ends five times in a row, each time within a minute, is
/// given up with its task.
///
/// Told to end, it first waits until only the service itself, known by its last argument,
/// has the option `$1`, which names its port: executors of a drained agent move their files
/// away meanwhile. The grace of its task bounds that. Where its container has processes of
/// its own it sees no executor, and does not wait.
const SUPERVISE: &str = r#"option=$1
shift
for main; do :; done
end=
trap 'end=1' TERM
used() {
  for f in $(printf '%s\n' "$option" | grep -lszxF -f - /proc/[0-9]*/cmdline); do
    grep -qszxF -e "$main" "$f" || [ ! -e "$f" ] || return 0
  done
  return 1
}
n=0
while [ $n -lt 5 ]; do
  t=$(date +%s)
  (trap '' TERM; exec "$@") &
  p=$!
  s=
  while [ -z "$s" ]; do
    if [ -n "$end" ]; then
      used || { kill -KILL $p; exit 143; }
      sleep 1
      kill -0 $p 2>/dev/null || s=143
    else
      wait $p
      s=$?
      if [ -n "$end" ]; then s=; fi
    fi
  done
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
    let filler = Filler::new(&[(PORT, &served.port.to_string()), ("{{APP_ID}}", app.id)]);
    let option = command.iter().find(|a| a.contains(PORT)).map_or(PORT, String::as_str);
    let option = filler.fill(option);
    let shell = ["/bin/sh", "-c", SUPERVISE, "sh", &option].map(str::to_owned);
    let argv: Vec<String> =
        shell.into_iter().chain(command.iter().map(|a| filler.fill(a))).collect();
    let executors = app.register.kill_grace_s.map(|s| Duration::from_secs(u64::from(s)));
    let grace = executors.map_or(KILL_GRACE, |grace| grace + AFTER_EXECUTORS);
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
                nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX),
            }),
        }),
        ..Default::default()
    })
}

/// The driver is to know that nothing can be read any more of what a service served.
pub(super) fn lost(agent: &AgentId, host: String, reason: String) -> Output {
    Output::Driver(ToDriver::ServiceLost { agent: agent.to_string(), host, reason })
}

/// What a status of a service's task says.
pub(super) enum Meaning {
    /// It runs there.
    Running(AgentId),
    /// It is gone.
    Gone(Exit),
    /// The master does not know it, and may hear of it yet.
    Unknown,
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
        exit::Meaning::Unknown => Meaning::Unknown,
        exit::Meaning::Nothing => Meaning::Nothing,
    }
}
