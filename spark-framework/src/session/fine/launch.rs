//! Tasks and their executors as the cluster's.

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{
    resources::{Dialect, Resources},
    v1,
};
use tracing::info;

use super::FineSession;
use crate::{
    executor::{Begin, COMMAND, task_data},
    policy::{
        ExecutorNo,
        fine::{FineLaunch, TaskNo},
    },
    protocol::SparkTask,
    session::{
        launch::{App, Filler, variable},
        shuffle,
    },
};

/// Between the order to shut down and the end by force: time for the JVM's shutdown
/// hooks, which remove its files.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// An executor that tasks were sent to. Its message must be the same for all tasks.
pub(super) struct Made {
    info: v1::ExecutorInfo,
    /// What its first tasks bring along.
    begin: Vec<u8>,
}

impl FineSession {
    pub(super) fn tasks(
        &mut self,
        launch: FineLaunch,
        asked: &mut BTreeMap<TaskNo, SparkTask>,
    ) -> Vec<v1::TaskInfo> {
        let FineLaunch { agent, hostname, role, executor, executor_resources, up, tasks, .. } =
            launch;
        let role = role.as_deref();
        let served = launch.served;
        if !self.executors.contains_key(&executor) {
            info!(executor = executor.0, %agent, host = hostname, "launching");
            let port = served.as_ref().map_or(0, |s| s.port);
            let made = self.executor(executor, &hostname, &executor_resources, role, port);
            self.executors.insert(executor, made);
        }
        let Some(made) = self.executors.get(&executor) else { return Vec::new() };
        let begin = (!up).then_some(made.begin.as_slice());
        let id = self.app_id.as_deref().unwrap_or_default();
        let app = App { register: &self.register, id, place: &self.place };
        let service = served.and_then(|served| shuffle::task(&app, &served, &agent, role));
        let tasks = tasks.into_iter().filter_map(|(no, resources)| {
            let (name, data) = match no.is_sparks() {
                true => asked.remove(&no).map(|task| (task.name, task.data))?,
                // Without data: the executor knows it by that.
                false => (format!("start of executor {executor}"), Vec::new()),
            };
            Some(v1::TaskInfo {
                name,
                task_id: v1::TaskId { value: no.to_string() },
                agent_id: (&agent).into(),
                resources: resources.to_proto(Dialect::Refined, role),
                executor: Some(made.info.clone()),
                data: Some(task_data(begin, &data)),
                ..Default::default()
            })
        });
        // The service first: the executor looks for it when it starts.
        service.into_iter().chain(tasks).collect()
    }

    fn executor(
        &self,
        no: ExecutorNo,
        hostname: &str,
        resources: &Resources,
        role: Option<&str>,
        shuffle_port: u16,
    ) -> Made {
        let id = no.to_string();
        let app = self.app_id.as_deref().unwrap_or_default();
        let fill = Filler::new(&[
            ("{{EXECUTOR_ID}}", &id),
            ("{{HOSTNAME}}", hostname),
            ("{{HEAP_MIB}}", &self.settings.heap.to_string()),
            ("{{APP_ID}}", app),
            ("{{SHUFFLE_PORT}}", &shuffle_port.to_string()),
        ]);
        let env = self.register.env.iter();
        let variables = env.map(|(k, v)| variable(k.clone(), fill.fill(v))).collect();
        let begin = Begin {
            command: self.place.argv(self.register.command.iter().map(|a| fill.fill(a)).collect()),
            executor: id.clone(),
            host: self.place.hostname(hostname).to_owned(),
            app: app.to_owned(),
            props: self.settings.props.clone(),
        };
        let info = v1::ExecutorInfo {
            executor_id: v1::ExecutorId { value: id.clone() },
            r#type: Some(v1::executor_info::Type::Custom as i32),
            name: Some(format!("{} executor {id}", self.register.app_name)),
            resources: resources.to_proto(Dialect::Refined, role),
            command: Some(v1::CommandInfo {
                environment: Some(v1::Environment { variables }),
                ..self.place.command(vec![self.program.clone(), COMMAND.to_owned()])
            }),
            container: self.place.container(),
            shutdown_grace_period: Some(v1::DurationInfo {
                nanoseconds: i64::try_from(SHUTDOWN_GRACE.as_nanos()).unwrap_or(i64::MAX),
            }),
            ..Default::default()
        };
        Made { info, begin: begin.to_bytes() }
    }
}
