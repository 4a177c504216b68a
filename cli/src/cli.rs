//! The command line: one program, one subcommand a file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands::{
    agent::AgentArgs, attach::AttachArgs, exec::ExecArgs, explain::ExplainArgs,
    framework::FrameworkArgs, frameworks::FrameworksArgs, local::LocalArgs, logs::LogsArgs,
    master::MasterArgs, run::RunArgs, spark::SparkArgs, task::TaskArgs, tasks::TasksArgs,
};
use crate::{client::ClientArgs, output::OutputArgs};

/// Mezz, a cluster scheduler: a master offers the resources of its agents to
/// frameworks, and each framework decides what to run where.
///
/// An option whose help names an environment variable can also be set by that,
/// and by a TOML file. Flags win over the environment, the environment over the
/// file, and the file over the defaults.
#[derive(Debug, Parser)]
#[command(
    name = "mezz",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// TOML file with a table for each kind of command (`master`, `agent`, `local`,
    /// `dispatcher` and `client`), whose keys are the options' names
    #[arg(long, global = true, env = "MEZZ_CONFIG", value_name = "FILE", display_order = 1000)]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do. A variant without a comment has its help on its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Master(Box<MasterArgs>),
    Agent(Box<AgentArgs>),
    Local(Box<LocalArgs>),
    Run(Box<RunArgs>),
    Spark(SparkArgs),
    /// List agents
    Agents(ListArgs),
    Frameworks(FrameworksArgs),
    Tasks(TasksArgs),
    /// List outstanding offers
    Offers(ListArgs),
    /// List roles
    Roles(ListArgs),
    Task(TaskArgs),
    Framework(FrameworkArgs),
    Logs(LogsArgs),
    Exec(ExecArgs),
    Attach(AttachArgs),
    Explain(ExplainArgs),
    /// The Spark driver's helper, started by the Spark plugin.
    #[command(hide = true)]
    SparkSidecar,
    /// What runs Spark's tasks in fine-grained mode, started by an agent.
    #[command(hide = true)]
    SparkExecutor,
}

/// A list with no filter of its own.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Cli {
    /// The definition of the whole command line.
    pub fn definition() -> clap::Command {
        fn hide_values(command: clap::Command) -> clap::Command {
            // Help is about what can be set, not about what this shell has set.
            command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(hide_values)
        }
        hide_values(<Self as clap::CommandFactory>::command())
            // Someone sits before it and wants to read what to do next.
            .mut_subcommand("local", |local| {
                local.mut_arg("log_level", |arg| arg.default_value("warn"))
            })
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::definition().debug_assert();
    }

    /// The house rule: each option of a server can be set by flag, environment
    /// and file, and its help says what it is when nobody sets it.
    #[test]
    fn server_options_have_environment_default_and_help() {
        let command = Cli::definition();
        // Absent by default, or required; their help has to say what then.
        let optional = [
            "advertise",
            "cluster",
            "region",
            "zone",
            "hostname",
            "resources",
            "attributes",
            "weights",
            "fair_sharing_excluded",
            "work_dir",
            "upload_dir",
            "master",
            "fetcher_command",
            "isolation",
            "image_dir",
            "docker_config",
            "native_library",
            "user",
            "agent_mezz",
            "agent_bridge_jar",
            "etcd_user",
            "etcd_password_file",
            "etcd_ca_file",
            "etcd_cert_file",
            "etcd_key_file",
            "credentials",
            "principal",
            "secret_file",
        ];
        for name in ["master", "agent", "local", "dispatcher"] {
            let spark = command.find_subcommand("spark").unwrap();
            let sub = command.find_subcommand(name).or_else(|| spark.find_subcommand(name));
            let sub = sub.unwrap();
            for arg in sub.get_arguments() {
                let id = arg.get_id().as_str();
                if id == "help" || id == "config" {
                    continue;
                }
                assert!(arg.get_long().is_some(), "{name} {id}: no flag");
                let env = arg.get_env().map(|e| e.to_string_lossy().into_owned());
                let env = env.unwrap_or_else(|| panic!("{name} {id}: no environment variable"));
                assert!(env.starts_with("MEZZ_") || env == "RUST_LOG", "{name} {id}: {env}");
                assert!(arg.get_help().is_some(), "{name} {id}: no help");
                assert!(
                    !arg.get_default_values().is_empty() || optional.contains(&id),
                    "{name} {id}: no default"
                );
            }
        }
    }
}
