//! `mezz`: the one program that users install.
//!
//! Everything that decides is in the libraries; here are options, output, and
//! the wiring.

mod cli;
mod client;
mod clock;
mod commands;
mod config;
mod credentials;
mod ids;
mod logging;
mod output;
mod resources;
mod sandbox;
mod server;
mod terminal;
#[cfg(test)]
mod testing;
mod text;
mod units;

use std::{io, process::ExitCode};

use cli::Command;
use config::{ParseError, Parsed, Problems, Sources};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for wrong options, as clap has it.
const USAGE: u8 = 2;

/// Threads for short work on files. With tokio's 512, a thousand launches at once would
/// have left an agent with as many heaps.
const BLOCKING_THREADS: usize = 64;

/// A wrong option that only its command can see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// An error that ends the program with the status for wrong options.
fn usage(problem: impl Into<String>) -> anyhow::Error {
    UsageError(problem.into()).into()
}

fn main() -> ExitCode {
    // Before there is any thread: see the module.
    if let Some(code) = commands::launch::dispatch() {
        return code;
    }
    let args: Vec<_> = std::env::args_os().collect();
    let parsed = match config::parse(&args) {
        Ok(parsed) => parsed,
        // Prints help and version to stdout, errors to stderr, and knows the status.
        Err(ParseError::Clap(error)) => error.exit(),
        Err(ParseError::File(problems)) => return report(&problems.into()),
    };
    match run(&parsed) {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// Servers hold much that is mostly empty (buffers of connections, heaps of threads);
/// huge pages would make all of it resident (docs/performance.md). Children inherit the
/// setting: a launcher takes it back for the program that it starts.
fn use_small_pages() {
    // A kernel without huge pages refuses; then there is nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn run(parsed: &Parsed) -> anyhow::Result<ExitCode> {
    let (command, matches) = parsed.subcommand();
    let sources = Sources { command, matches, file: parsed.file.as_ref() };
    match &parsed.cli.command {
        Command::Master(args) => serve(commands::master::run(args, &sources)),
        Command::Agent(args) => match &args.command {
            Some(command) => list(commands::agent::command(command)),
            None => serve(commands::agent::run(args, &sources)),
        },
        Command::Local(args) => serve(commands::local::run(args, &sources)),
        Command::Spark(args) => commands::spark::run(args, &sources),
        Command::SparkSidecar => block_on_one_thread(commands::spark::sidecar()),
        Command::SparkExecutor => block_on_one_thread(commands::spark::executor()),
        Command::Run(args) => ask(commands::run::run(args)),
        Command::Agents(args) => list(commands::agents::run(args)),
        Command::Frameworks(args) => list(commands::frameworks::run(args)),
        Command::Tasks(args) => list(commands::tasks::run(args)),
        Command::Offers(args) => list(commands::offers::run(args)),
        Command::Roles(args) => list(commands::roles::run(args)),
        Command::Task(args) => list(commands::task::run(args)),
        Command::Framework(args) => list(commands::framework::run(args)),
        Command::Logs(args) => list(commands::logs::run(args)),
        Command::Exec(args) => ask(commands::exec::run(args)),
        Command::Attach(args) => list(commands::attach::run(args)),
        Command::Explain(args) => list(commands::explain::run(args)),
    }
}

/// Runs a future to its end on a runtime of its own.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_on(Builder::new_multi_thread(), future)
}

/// The same for what passes short messages on, one after the other: to hand each to another
/// thread would cost more than the work itself.
fn block_on_one_thread<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_on(Builder::new_current_thread(), future)
}

fn run_on<T>(
    mut builder: Builder,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let result = runtime.block_on(future);
    // What is left running (a read, a name look-up) does not hold the exit up.
    runtime.shutdown_background();
    result
}

/// A command that runs until it is told to stop.
fn serve(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    use_small_pages();
    block_on(future).map(|()| ExitCode::SUCCESS)
}

/// A command that asks a master and has an exit status of its own.
fn ask(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    logging::start_quiet();
    block_on(future)
}

/// A command that asks a master.
fn list(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    ask(async { future.await.map(|()| ExitCode::SUCCESS) })
}

/// Tells what went wrong, once, and the exit status that it means.
fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read our output has had enough.
    let broken_pipe = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    eprintln!("error: {text}");
    if error.is::<UsageError>() || error.is::<Problems>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}
