//! The whole way of a comparison, a second of each load: the loads are what the load generator takes, the programs start with the
//! configurations that are written for them, and the reports have what figures are made of.

use std::path::Path;

use adit_tests::process::{PATIENCE, Program, own_program};

#[test]
fn loads_run_and_give_figures() {
    let adit = own_program("adit");
    let programs = adit.parent().expect("programs lie in a directory").display().to_string();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let page = directory.path().display().to_string();
    // Any machine has a CPU 0.
    let stand = ["--programs", &programs, "--directory", &page, "--pool-cpus", "0", "--generator-cpus", "0"];
    let loads = ["peers", "--smoke", "--pools", "adit", "--rounds", "1", "--loads", "a,c,e"];
    let mut perf =
        Program::start(Path::new(env!("CARGO_BIN_EXE_adit-perf")), &[&loads[..], &stand[..]].concat());
    let status = perf.wait(3 * PATIENCE);
    let lines = perf.lines();
    let shown = lines.join("\n");
    assert!(status.success(), "{status}: {shown}");
    let after = |load: &str, figure: &str| {
        let of_load = lines.iter().skip_while(|line| !line.contains(&format!("load {load},"))).skip(1);
        let mut of_load = of_load.take_while(|line| line.starts_with("  "));
        of_load.any(|line| line.trim_start().starts_with(figure))
    };
    for (load, figure) in [
        ("a", "CPU per share, us"),
        ("a", "ack p99, ms"),
        ("c", "CPU per share, us"),
        ("e", "last connection has it after, ms"),
    ] {
        assert!(after(load, figure), "{figure} of load {load} is missing:\n{shown}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0, "nothing is recorded");
}
