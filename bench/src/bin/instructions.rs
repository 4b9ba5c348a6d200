//! `adit-instructions`: counts the instructions of all cases and holds them against the committed figures.
//!
//! `adit-instructions check RECORD` compares, `adit-instructions renew RECORD` counts and writes the record anew, and
//! `adit-instructions case NAME` is one case, as it runs under valgrind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use adit_bench::instructions::callgrind::{CountError, UNSUPPORTED, count, environment};
use adit_bench::instructions::cases::cases;
use adit_bench::instructions::compare::{Comparison, Count};
use adit_bench::instructions::record::Record;

const USAGE: &str = "usage: adit-instructions check RECORD | renew RECORD | case NAME";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["case", name] => return case(name),
        ["check", record] => check(Path::new(record)),
        ["renew", record] => renew(Path::new(record)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("adit-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One case, in this process.
fn case(name: &str) -> ExitCode {
    let Some(case) = cases().into_iter().find(|case| case.name == name) else {
        eprintln!("adit-instructions: no case is named {name:?}");
        return ExitCode::FAILURE;
    };
    case.run().map_or(ExitCode::from(UNSUPPORTED), |()| ExitCode::SUCCESS)
}

/// Compares, and says whether the build may go on.
fn check(path: &Path) -> Result<bool, String> {
    let record = Record::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let environment = environment().map_err(|error| error.to_string())?;
    let counted = count_all()?;
    let comparison = Comparison::new(&record, &counted, environment.differences(&record.environment));
    println!("{comparison}");
    Ok(comparison.passes())
}

fn renew(path: &Path) -> Result<bool, String> {
    let environment = environment().map_err(|error| error.to_string())?;
    let instructions = count_all()?.into_iter().map(|(name, count)| match count {
        Count::Instructions(count) => Ok((name, count)),
        Count::Unsupported => Err(format!("a record is made where every case runs, and {name:?} does not")),
    });
    let record = Record { environment, instructions: instructions.collect::<Result<_, String>>()? };
    record.write(path).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}: {} cases", path.display(), record.instructions.len());
    Ok(true)
}

/// Counts every case, as many at a time as there are CPUs: what they count does not depend on one another.
fn count_all() -> Result<BTreeMap<String, Count>, String> {
    let program = env::current_exe().map_err(|error| format!("this program's path is unknown: {error}"))?;
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    let next = AtomicUsize::new(0);
    let counted = Mutex::new(Vec::with_capacity(names.len()));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = count(&program, name, folder.path());
            counted.lock().expect("no thread panics").push((name.clone(), count));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let counted = counted.into_inner().expect("no thread panics");
    counted.into_iter().map(|(name, count)| named(name, count)).collect()
}

fn named(name: String, count: Result<Count, CountError>) -> Result<(String, Count), String> {
    match count {
        Ok(count) => Ok((name, count)),
        Err(error) => Err(format!("{name:?}: {error}")),
    }
}
