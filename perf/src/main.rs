//! `adit-perf`: Adit beside its peers under the same loads, its limits, and profiles of it.
//!
//! Every run starts from nothing: a template provider on work without a node, the pool under test, and the load generator, each
//! a process of its own on CPUs of its own. What the runs gave is a record (JSON, with machine, command and commit), and the
//! page `perf/README.md` is written from the newest records.
#![forbid(unsafe_code)]

mod compare;
mod failure;
mod figures;
mod flamegraph;
mod generator;
mod loads;
mod machine;
mod page;
mod plot;
mod programs;
mod record;
mod run;
mod scale;
mod stand;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::loads::{Load, Suite};
use crate::programs::Programs;
use crate::run::PoolKind;
use crate::stand::{CpuList, Stand};

#[derive(Debug, Parser)]
#[command(version, about = "Adit beside its peers under the same loads, its limits, and profiles of it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Adit and the reference implementation's pool in turn under the same loads, and write record and page
    Peers(PeersArgs),
    /// Run Adit alone at its limits, and write record and page
    Scale(ScaleArgs),
    /// Profile a pool under a load, as an SVG
    Flamegraph(FlamegraphArgs),
    /// Write the page again, from the newest records
    Page(PageArgs),
}

#[derive(Debug, Args)]
struct StandArgs {
    /// The directory with adit and adit-loadgen; that of this program if not given.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// The reference implementation's pool_sv2; the one that `make fixtures` built if not given.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// CPUs of the pool under test.
    #[arg(long, default_value = "0")]
    pool_cpus: CpuList,
    /// CPUs of the load generator and the template provider.
    #[arg(long, default_value = "1")]
    generator_cpus: CpuList,
}

#[derive(Debug, Args)]
struct PageArgs {
    /// Where records lie and the page is written.
    #[arg(long, default_value = "perf")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct PeersArgs {
    #[command(flatten)]
    stand: StandArgs,
    #[command(flatten)]
    page: PageArgs,
    /// Loads by name, such as `a,b,c`; all if not given.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// Which pools.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = PoolKind::ALL)]
    pools: Vec<PoolKind>,
    /// How often each pool runs under each load, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// A second of each load with a hundredth of its connections: shows that everything works, measures nothing.
    #[arg(long)]
    smoke: bool,
}

#[derive(Debug, Args)]
struct ScaleArgs {
    #[command(flatten)]
    stand: StandArgs,
    #[command(flatten)]
    page: PageArgs,
    /// Loads by name, such as `j,k`; all if not given.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// As for `peers`.
    #[arg(long)]
    smoke: bool,
}

#[derive(Debug, Args)]
struct FlamegraphArgs {
    #[command(flatten)]
    stand: StandArgs,
    /// The load, by its name.
    #[arg(long, default_value = "a")]
    load: String,
    /// Which pool.
    #[arg(long, value_enum, default_value_t = PoolKind::Adit)]
    pool: PoolKind,
    /// The SVG; `perf/profile/LOAD.svg` if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Sample a shard without sockets in this process, as is done where there is no perf.
    #[arg(long)]
    in_process: bool,
    /// Samples in a second.
    #[arg(long, default_value_t = 997)]
    frequency: u32,
}

impl StandArgs {
    fn stand(&self, smoke: bool) -> Result<Stand, Failure> {
        let programs = Programs::find(self.programs.clone(), self.peer.clone())?;
        let (pool_cpus, generator_cpus) = (self.pool_cpus.clone(), self.generator_cpus.clone());
        Ok(Stand { programs, pool_cpus, generator_cpus, smoke })
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Peers(args) => peers(&args),
        Command::Scale(args) => scale(&args),
        Command::Flamegraph(args) => profile(&args),
        Command::Page(args) => page::write(&args.directory),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody to tell where stderr is closed.
            let _ = writeln!(std::io::stderr(), "adit-perf: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A line for whoever watches.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn peers(args: &PeersArgs) -> Result<(), Failure> {
    let stand = args.stand.stand(args.smoke)?;
    let loads = Load::select(Suite::Peers, &args.loads)?;
    let mut record = record::Record::begin(Suite::Peers, &stand);
    for round in 0..args.rounds {
        for load in &loads {
            // Neither goes first every time: what the one leaves behind in caches and kernel meets both.
            let mut pools = args.pools.clone();
            if round % 2 == 1 {
                pools.reverse();
            }
            for pool in pools {
                record.add(stand.run(load, pool, round)?);
            }
        }
    }
    record.finish(&args.page.directory)
}

fn scale(args: &ScaleArgs) -> Result<(), Failure> {
    let stand = args.stand.stand(args.smoke)?;
    let loads = Load::select(Suite::Scale, &args.loads)?;
    let mut record = record::Record::begin(Suite::Scale, &stand);
    for load in &loads {
        for run in scale::runs(&stand, load)? {
            record.add(run);
        }
    }
    record.finish(&args.page.directory)
}

fn profile(args: &FlamegraphArgs) -> Result<(), Failure> {
    if args.in_process || !flamegraph::has_perf() {
        let out = args.out.clone().unwrap_or_else(|| PathBuf::from("perf/profile/shard.svg"));
        return flamegraph::profile_in_process(args.frequency, &out);
    }
    let stand = args.stand.stand(false)?;
    let load = Load::find(&args.load)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("perf/profile/{}.svg", load.name)));
    flamegraph::profile(&stand, load, args.pool, args.frequency, &out)
}
