//! Cluster mode from the client's side: `mezz spark submit --deploy-mode cluster`,
//! `status`, `kill`, `list` and `logs`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use mezz_spark::{
    dispatcher::{ArgumentError, Client, ClientError, ClusterSubmit, DriverView, dispatcher_of},
    submit::Mode,
};
use serde::Serialize;

use crate::{
    client::ClientArgs,
    clock,
    commands::task::TaskSelector,
    ids,
    output::{self, Cells, Column, Format, OutputArgs, Row},
    sandbox::{self, SandboxFile},
    units, usage,
};

/// Where a dispatcher is unless somebody says otherwise.
const DEFAULT_DISPATCHER: &str = "127.0.0.1:7077";

/// The setting that names it.
const DISPATCHER: &str = "spark.mezz.dispatcher";

/// How often a driver that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A dispatcher that is restarted is back within this.
const DISPATCHER_BACK_WITHIN: Duration = Duration::from_secs(60);

/// Which dispatcher.
#[derive(Clone, Debug, Args)]
pub struct DispatcherClientArgs {
    /// The dispatcher, or several that share their store, between commas [default:
    /// spark.mezz.dispatcher of spark-defaults.conf, else 127.0.0.1:7077]
    #[arg(long, env = "MEZZ_DISPATCHER", value_name = "HOST:PORT", value_delimiter = ',')]
    pub dispatcher: Vec<String>,
}

impl DispatcherClientArgs {
    fn client(&self) -> anyhow::Result<Client> {
        let named = match self.dispatcher.is_empty() {
            false => self.dispatcher.join(","),
            true => defaults()
                .map(|file| dispatcher_of(&file))
                .transpose()?
                .flatten()
                .unwrap_or_else(|| DEFAULT_DISPATCHER.to_owned()),
        };
        let addresses: Vec<String> = named
            .split(',')
            .map(|address| units::peer_address(address.trim()))
            .collect::<Result<_, _>>()
            .map_err(|problem| usage(format!("--dispatcher: {problem}")))?;
        Ok(Client::new(&addresses)?)
    }
}

/// Options of what names a driver.
#[derive(Debug, Args)]
pub struct DriverArgs {
    /// The driver's id; an end or a beginning of it is enough
    #[arg(value_name = "DRIVER")]
    id: String,
    /// Whom to ask.
    #[command(flatten)]
    dispatcher: DispatcherClientArgs,
}

/// Options of `mezz spark status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which.
    #[command(flatten)]
    driver: DriverArgs,
    /// How to print it.
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `mezz spark list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Whom to ask.
    #[command(flatten)]
    dispatcher: DispatcherClientArgs,
    /// How to print it.
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `mezz spark logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which.
    #[command(flatten)]
    driver: DriverArgs,
    /// Go on until the driver has ended, also over its restarts
    #[arg(long, short)]
    follow: bool,
    /// What it wrote to its standard error instead, where Spark's own log is
    #[arg(long)]
    stderr: bool,
    /// The master, which knows the agents.
    #[command(flatten)]
    client: ClientArgs,
}

/// A driver, as its list shows it.
#[derive(Serialize)]
#[serde(transparent)]
struct DriverRow(DriverView);

impl Row for DriverRow {
    const NOUN: &'static str = "driver";
    const COLUMNS: &'static [Column] = &[
        Column::left("ID"),
        Column::left("NAME"),
        Column::left("STATE"),
        Column::left("HOST"),
        Column::right("CPUS"),
        Column::right("MEM"),
        Column::right("PRIORITY").wide(),
        Column::right("LAUNCHES").wide(),
        Column::left("SUPERVISED").wide(),
        Column::left("APPLICATION").wide(),
        Column::left("IMAGE").wide(),
        Column::right("AGE"),
        Column::left("MESSAGE").wide(),
    ];

    fn cells(&self) -> Cells {
        let view = &self.0;
        vec![
            view.id.clone(),
            view.name.clone(),
            view.state.clone(),
            view.host.clone().unwrap_or_default(),
            units::number(view.cpus),
            units::mebibytes(view.mem_mib as f64),
            view.priority.to_string(),
            view.launches.to_string(),
            if view.supervise { "yes" } else { "no" }.to_owned(),
            view.main_class.clone().unwrap_or_else(|| view.resource.clone()),
            view.docker_image.clone().unwrap_or_default(),
            units::age(clock::now(), view.submitted_time),
            view.message.clone().unwrap_or_default(),
        ]
    }
}

/// Lists drivers.
///
/// # Errors
/// When the dispatcher cannot be asked.
pub async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let all = args.dispatcher.client()?.list().await?;
    let rows: Vec<DriverRow> = all.into_iter().map(DriverRow).collect();
    output::print(&rows, args.output.output)?;
    Ok(())
}

/// Prints one driver.
///
/// # Errors
/// When there is none, or the dispatcher cannot be asked.
pub async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let view = args.driver.find(&args.driver.dispatcher.client()?).await?;
    if args.output.output == Format::Json {
        output::print_json(&view)?;
        return Ok(());
    }
    let message = view.message.clone();
    output::print(&[DriverRow(view)], args.output.output)?;
    if let Some(message) = message {
        eprintln!("{message}");
    }
    Ok(())
}

/// Ends a driver.
///
/// # Errors
/// When there is none, it has ended, or the dispatcher cannot be asked.
pub async fn kill(args: &DriverArgs) -> anyhow::Result<()> {
    let client = args.dispatcher.client()?;
    let view = args.find(&client).await?;
    eprintln!("{}", client.kill(&view.id).await?);
    Ok(())
}

impl DriverArgs {
    async fn find(&self, client: &Client) -> anyhow::Result<DriverView> {
        let all = client.list().await?;
        let ids = all.iter().map(|view| view.id.as_str());
        let id = ids::resolve(&self.id, ids, "driver", "mezz spark list")
            .map_err(anyhow::Error::msg)?
            .to_owned();
        all.into_iter()
            .find(|view| view.id == id)
            .ok_or_else(|| anyhow!("no driver `{id}`; `mezz spark list` lists them"))
    }
}

/// Prints what a driver writes, read from its agent.
///
/// # Errors
/// When it has not been launched, or its agent cannot be asked.
pub async fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    let client = args.driver.dispatcher.client()?;
    let mut view = args.driver.find(&client).await?;
    let mut printed = None;
    loop {
        let task = view.task_id.clone().filter(|task| printed.as_ref() != Some(task));
        match (task, view.framework_id.clone()) {
            (Some(task), Some(framework)) => {
                print_logs(args, &task, &framework, &view).await?;
                printed = Some(task);
            }
            _ if view.ended && printed.is_none() => {
                bail!("driver {} was never launched: {}", view.id, describe(&view));
            }
            _ if view.ended => return Ok(()),
            _ if !args.follow => {
                bail!("driver {} is {}; with -f it is waited for", view.id, describe(&view));
            }
            _ => tokio::time::sleep(POLL).await,
        }
        if !args.follow {
            return Ok(());
        }
        view = get(&client, &view.id).await?;
    }
}

async fn print_logs(
    args: &LogsArgs,
    task: &str,
    framework: &str,
    view: &DriverView,
) -> anyhow::Result<()> {
    let selector = TaskSelector { task: task.to_owned(), framework: Some(framework.to_owned()) };
    let mut operator = args.client.operator().await?;
    // The master forgets ended tasks in time; the dispatcher knows where they were.
    let agent = match selector.find(&mut operator, true).await {
        Ok(record) => record.agent_api_address,
        Err(_) => view.agent_address.clone(),
    };
    let agent = agent.ok_or_else(|| {
        anyhow!("the agent of driver {} is gone, and its sandbox with it", view.id)
    })?;
    let file = SandboxFile {
        agent,
        framework_id: framework.to_owned(),
        task_id: task.to_owned(),
        path: if args.stderr { "stderr" } else { "stdout" }.to_owned(),
        follow: args.follow,
    };
    sandbox::read(&file, output::write_bytes).await
}

/// Waits out a restart of the dispatcher.
async fn get(client: &Client, id: &str) -> anyhow::Result<DriverView> {
    let start = tokio::time::Instant::now();
    loop {
        match client.get(id).await {
            Ok(view) => return Ok(view),
            Err(error @ (ClientError::Unreachable { .. } | ClientError::NobodyLeads { .. })) => {
                if start.elapsed() > DISPATCHER_BACK_WITHIN {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn describe(view: &DriverView) -> String {
    match &view.message {
        Some(message) => format!("{} ({message})", view.state),
        None => view.state.clone(),
    }
}

/// Whether these arguments of `mezz spark submit` are for a dispatcher.
pub fn wanted(arguments: &[OsString]) -> bool {
    let mut last: Option<String> = None;
    for arg in arguments {
        let text = arg.to_string_lossy();
        let value = match last.take().as_deref() {
            Some("--deploy-mode") => Some(text.to_string()),
            Some("--conf" | "-c") => deploy_mode(&text),
            // The value of another option.
            Some(_) => continue,
            None if !text.starts_with('-') => return false,
            None if matches!(&*text, "--help" | "-h") => return false,
            None => match text.split_once('=').filter(|_| text.starts_with("--")) {
                Some(("--deploy-mode", value)) => Some(value.to_owned()),
                Some(("--conf", value)) => deploy_mode(value),
                Some(_) => None,
                None => {
                    let switch = super::SWITCHES.contains(&&*text) || text == "--wait";
                    last = (!switch).then(|| text.to_string());
                    None
                }
            },
        };
        if value.as_deref() == Some("cluster") {
            return true;
        }
    }
    false
}

fn deploy_mode(setting: &str) -> Option<String> {
    setting.strip_prefix("spark.submit.deployMode=").map(str::to_owned)
}

/// Submits to a dispatcher.
///
/// # Errors
/// What is wrong with the arguments, or why the dispatcher does not take it.
pub async fn submit(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let mut dispatcher = None;
    let mut rest: Vec<String> = Vec::new();
    let mut arguments = arguments.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(arg) = arguments.next() {
        let (name, inline) = match arg.split_once('=').filter(|_| arg.starts_with("--")) {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg.clone(), None),
        };
        match name.as_str() {
            "--dispatcher" => dispatcher = inline.or_else(|| arguments.next()),
            // As Spark's own clients name it; our masters are the dispatcher's affair.
            "--master" => {
                let master = inline.or_else(|| arguments.next());
                let named = master.and_then(|m| m.strip_prefix("spark://").map(str::to_owned));
                dispatcher = named.or(dispatcher);
            }
            "--mode" => {
                let mode = Mode::parse(&inline.or_else(|| arguments.next()).unwrap_or_default())?;
                rest.extend(["--conf".to_owned(), mode.setting().to_owned()]);
            }
            // Where things are on this machine, where no driver runs.
            "--spark-home" | "--bridge-jar" => drop(inline.or_else(|| arguments.next())),
            name if !name.starts_with('-') => {
                rest.push(arg);
                rest.extend(arguments);
                break;
            }
            name => {
                let alone = inline.is_some() || super::SWITCHES.contains(&name) || name == "--wait";
                let value = if alone { None } else { arguments.next() };
                let set = inline.as_deref().or(value.as_deref()).unwrap_or_default();
                if let ("--conf" | "-c", Some((DISPATCHER, named))) = (name, set.split_once('=')) {
                    dispatcher = dispatcher.or_else(|| Some(named.to_owned()));
                }
                rest.push(arg);
                rest.extend(value);
            }
        }
    }
    let wrong = |error: ArgumentError| usage(error.to_string());
    let submit = ClusterSubmit::read(&rest, defaults().as_deref()).map_err(wrong)?;
    let files = submit.local_files().map_err(wrong)?;
    let of_environment = || std::env::var("MEZZ_DISPATCHER").ok().filter(|d| !d.is_empty());
    let of_files = || submit.dispatcher().map(str::to_owned);
    let dispatcher = dispatcher.or_else(of_environment).or_else(of_files);
    let dispatcher = dispatcher.map(|all| all.split(',').map(str::to_owned).collect());
    let dispatcher = dispatcher.unwrap_or_default();
    let client = DispatcherClientArgs { dispatcher }.client()?;
    let wait = submit.wait;
    let id = submit.send(&client, &files).await?;
    output::write(&format!("{id}\n"))?;
    if wait { wait_for_end(&client, &id).await } else { Ok(ExitCode::SUCCESS) }
}

/// Spark's file of settings on this machine, where Spark would look for it.
fn defaults() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let conf = folder("SPARK_CONF_DIR").or_else(|| Some(folder("SPARK_HOME")?.join("conf")))?;
    Some(conf.join("spark-defaults.conf"))
}

async fn wait_for_end(client: &Client, id: &str) -> anyhow::Result<ExitCode> {
    let mut said = String::new();
    loop {
        let view = get(client, id).await?;
        let now = describe(&view);
        if now != said {
            eprintln!("{id} is {now}");
            said = now;
        }
        if view.ended {
            let well = view.state == "FINISHED";
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::text;

    fn is_wanted(line: &str) -> bool {
        wanted(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_deploy_mode_is_looked_for_before_the_application() {
        for line in [
            "--deploy-mode cluster app.py",
            "-v --supervise --deploy-mode=cluster app.py",
            "--name app.py --conf spark.submit.deployMode=cluster app.py",
        ] {
            assert!(is_wanted(line), "{line}");
        }
        for line in [
            "app.py --deploy-mode cluster",
            "--deploy-mode client app.py",
            "--name --deploy-mode cluster",
            "--help --deploy-mode cluster",
            "",
        ] {
            assert!(!is_wanted(line), "{line}");
        }
    }

    #[test]
    fn table() {
        let view: DriverView = serde_json::from_value(serde_json::json!({
            "id": "driver-1", "name": "pi", "state": "RUNNING", "ended": false, "priority": 0,
            "supervise": false, "launches": 1, "resource": "http://h/pi.py", "cpus": 1.0,
            "mem_mib": 1408, "host": "a", "submitted_time": clock::now() - 5.0,
        }))
        .unwrap();
        let table = text(&[DriverRow(view)], Format::Table);
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "NAME", "STATE", "HOST", "CPUS", "MEM", "AGE"]);
        assert_eq!(lines[1][..5], ["driver-1", "pi", "RUNNING", "a", "1"]);
    }
}
