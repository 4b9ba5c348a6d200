//! The command line.
//!
//! Exit statuses: 0 done, 1 it failed while running, 2 the command line or the configuration is wrong. Results go to
//! stdout, everything else to stderr.

mod check;
mod demo;
mod failure;
mod key;
mod pool;
mod probe;
mod signals;
mod tp;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{LogFormat, LogLevel, Program};

pub use failure::Failure;

/// Stratum V2 pool engine.
#[derive(Debug, Parser)]
#[command(name = "adit", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pool
    Pool(pool::PoolArguments),
    /// Run a template provider
    Tp(tp::TpArguments),
    /// Run a pool, a node on a private chain and CPU miners in this process
    Demo(demo::DemoArguments),
    /// Check a configuration and print what would be used
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Print the documentation of the configuration, or a file to begin with
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make and look at keys and certificates
    #[command(subcommand, after_help = key::WORKFLOW)]
    Key(key::KeyCommand),
}

/// How the log on stderr looks; stronger than the configuration.
#[derive(Args, Debug)]
struct LogArguments {
    /// The least severe events that are written: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// human or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print every key with its meaning, unit, default and cost, as Markdown
    Reference,
    /// Print a configuration file with every key
    Example {
        /// Whose
        #[arg(default_value = "pool", value_parser = ["pool", "tp"])]
        program: String,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match arguments.command {
        Command::Pool(arguments) => pool::run(&arguments),
        Command::Tp(arguments) => tp::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Check { file } => check::run(&file),
        Command::Config(ConfigCommand::Reference) => print(&crate::config::reference::markdown()),
        Command::Config(ConfigCommand::Example { program }) => {
            let program = Program::ALL.into_iter().find(|known| known.as_str() == program);
            print(&crate::config::reference::example(program.unwrap_or(Program::Pool)))
        }
        Command::Key(command) => key::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

/// Writes a result to stdout. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::running(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
