//! One case under callgrind, and what it counted.

use std::path::Path;
use std::process::{Command, Output};
use std::{env, fmt, fs, io};

use super::compare::Count;
use super::record::Environment;

/// A case's exit code where the CPU cannot run it.
pub const UNSUPPORTED: u8 = 3;

/// What keeps a case from being counted.
#[derive(Debug)]
pub enum CountError {
    /// A program that could not be run.
    Start(&'static str, io::Error),
    /// The case failed under valgrind: what it wrote to stderr.
    Failed(String),
    /// Callgrind's file cannot be read.
    Unreadable(io::Error),
    /// Callgrind's file has no total.
    NoTotal,
    /// Nothing was collected: callgrind did not find the region by its name.
    Nothing,
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(program, error) => write!(f, "{program} cannot be run: {error}"),
            Self::Failed(stderr) => write!(f, "it failed under valgrind:\n{stderr}"),
            Self::Unreadable(error) => write!(f, "callgrind's file cannot be read: {error}"),
            Self::NoTotal => f.write_str("callgrind's file has no total"),
            Self::Nothing => f.write_str("nothing was counted: is the region's function in the program?"),
        }
    }
}

impl std::error::Error for CountError {}

/// Counts one case: this program, as `case NAME`, under callgrind, with its file in `folder`.
///
/// # Errors
/// See [`CountError`].
pub fn count(program: &Path, case: &str, folder: &Path) -> Result<Count, CountError> {
    let file = folder.join(case.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let mut valgrind = Command::new("valgrind");
    // The environment lies on the stack: its size would move what is counted.
    valgrind.env_clear();
    if let Some(path) = env::var_os("PATH") {
        valgrind.env("PATH", path);
    }
    valgrind
        .args(["--tool=callgrind", "--toggle-collect=*counted_region*", "--cache-sim=no", "--branch-sim=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["case", case]);
    let output = valgrind.output().map_err(|error| CountError::Start("valgrind", error))?;
    if output.status.code() == Some(i32::from(UNSUPPORTED)) {
        return Ok(Count::Unsupported);
    }
    if !output.status.success() {
        return Err(CountError::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = fs::read_to_string(&file).map_err(CountError::Unreadable)?;
    total(&text).map(Count::Instructions)
}

/// The total of a callgrind file that has instructions as its only event.
fn total(text: &str) -> Result<u64, CountError> {
    let line = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    if line("events:") != Some("Ir") {
        return Err(CountError::NoTotal);
    }
    match line("totals:").and_then(|total| total.parse().ok()) {
        None => Err(CountError::NoTotal),
        Some(0) => Err(CountError::Nothing),
        Some(total) => Ok(total),
    }
}

/// Where this machine's figures come from.
///
/// # Errors
/// [`CountError::Start`], where valgrind or the compiler is missing.
pub fn environment() -> Result<Environment, CountError> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let first_line = |output: Output| {
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("unknown").trim().to_owned()
    };
    let ask = |name, command: &mut Command| {
        command.output().map(first_line).map_err(|error| CountError::Start(name, error))
    };
    Ok(Environment {
        rustc: ask("rustc", Command::new(rustc).arg("--version"))?,
        valgrind: ask("valgrind", Command::new("valgrind").arg("--version"))?,
        libc: ask("getconf", Command::new("getconf").arg("GNU_LIBC_VERSION"))?,
        cpu: cpu(),
    })
}

/// Valgrind hands AVX2 on, and the C library and the backends use it where it is.
fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let avx2 = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = "";
    format!("{} {avx2}", env::consts::ARCH).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_file_is_read() {
        let text = "version: 1\nevents: Ir\n\nfn=(1) a\n5 12\n\ntotals: 4711\n";
        assert_eq!(total(text).unwrap(), 4_711);
    }

    #[test]
    fn a_file_without_a_total_is_an_error() {
        assert!(matches!(total("events: Ir\n"), Err(CountError::NoTotal)));
        assert!(matches!(total("events: Ir Dr\ntotals: 1 2\n"), Err(CountError::NoTotal)));
    }

    #[test]
    fn a_region_that_was_not_found_is_an_error() {
        assert!(matches!(total("events: Ir\ntotals: 0\n"), Err(CountError::Nothing)));
    }
}
