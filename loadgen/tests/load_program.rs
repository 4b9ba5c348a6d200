//! The program's commands `simulate` and `merge`.

mod pool;

use std::path::Path;
use std::process::{Command, Output};

use adit_codec::url::PoolUrl;
use adit_loadgen::report::{Latencies, Report};
use pool::Pool;
use tempfile::TempDir;

fn easy() -> Pool {
    let mut config = pool::config();
    config.vardiff.shares_per_minute = 1e9;
    Pool::start(config)
}

fn program(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_adit-loadgen")).args(args).output();
    let Output { status, stdout, stderr } = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn simulate(url: &PoolUrl, args: &[&str]) -> (Option<i32>, String, String) {
    let url = url.to_string();
    let brief = ["--set", "warmup_s=0.2", "--set", "duration_s=1.5", "--set", "join.timeout_s=20"];
    program(&[&["simulate", "--pool", &url], &brief[..], args].concat())
}

fn read(directory: &Path) -> Report {
    let json = std::fs::read_to_string(directory.join("report.json")).expect("a report");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}"))
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().expect("temporary paths are text").to_owned()
}

#[test]
fn processes_share_a_load_and_write_one_report() {
    let pool = easy();
    let directory = TempDir::new().unwrap();
    let scenario = path(&directory, "load.toml");
    std::fs::write(&scenario, "connections = 5\nchannels_per_connection = 3\nshares.per_minute = 3000\n")
        .unwrap();
    let (report, own) = (path(&directory, "report"), std::process::id().to_string());
    let args =
        ["--scenario", &scenario, "--processes", "2", "--report", &report, "--watch-pid", &own, "--strict"];
    let (code, stdout, stderr) = simulate(&pool.url, &args);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("the sum is right") && stdout.contains("verdict        good"), "{stdout}");
    assert!(stderr.contains("5/5 connections"), "the live line: {stderr}");
    let report = read(Path::new(&report));
    assert_eq!((report.generator.processes, report.tally.join.connections_served), (2, 5));
    assert_eq!(report.tally.join.channels_opened, 15);
    let accepted = pool.ask(|state| state.server.counters().shares_accepted);
    assert_eq!(report.tally.shares.accepted, accepted);
    assert!(report.watched[0].rss_bytes_max > 0 && report.watched[0].cpu_ns_measured > 0, "{report}");
    assert!(report.generator.cpu_ns_measured > 0);
    let text = std::fs::read_to_string(path(&directory, "report/report.txt")).unwrap();
    assert_eq!(text, stdout);
    let html = std::fs::read_to_string(path(&directory, "report/report.html")).unwrap();
    for title in ["Latency over time", "Latency by percentile", "Load of the threads", "verdict        good"]
    {
        assert!(html.contains(title), "{title}");
    }
    assert!(!html.contains("http"), "nothing is fetched");
}

#[test]
fn reports_of_several_hosts_add_up() {
    let pool = easy();
    let directory = TempDir::new().unwrap();
    let reports: Vec<String> = ["a", "b"].map(|name| path(&directory, name)).to_vec();
    for (report, connections) in reports.iter().zip(["connections=1", "connections=3"]) {
        let load = ["--set", connections, "--set", "shares.per_minute=20000", "--report", report];
        let (code, stdout, stderr) = simulate(&pool.url, &load);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
    }
    let parts: Vec<Report> = reports.iter().map(|report| read(Path::new(report))).collect();
    let files: Vec<String> = reports.iter().map(|report| format!("{report}/report.json")).collect();
    let whole = path(&directory, "whole");
    let (code, stdout, stderr) = program(&["merge", &files[0], &files[1], "--report", &whole, "--strict"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let merged = read(Path::new(&whole));
    let accepted: u64 = parts.iter().map(|part| part.tally.shares.accepted).sum();
    assert_eq!((merged.tally.shares.accepted, merged.scenario.connections), (accepted, 4));
    let mut latency = Latencies::default();
    for (value, count) in parts.iter().flat_map(|part| part.tally.measured.latency.buckets()) {
        latency.record_n(value, count);
    }
    assert_eq!(merged.tally.measured.latency, latency);
    assert!(stdout.contains("4 connections served"), "{stdout}");
    let (code, _, stderr) = program(&["merge", &no_report(&directory)]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("no-report.json"), "{stderr}");
}

fn no_report(directory: &TempDir) -> String {
    let path = path(directory, "no-report.json");
    std::fs::write(&path, "{}").expect("the directory can be written to");
    path
}

#[test]
fn a_thread_that_polls_does_not_sleep() {
    let pool = easy();
    let directory = TempDir::new().unwrap();
    // Sixty shares a second are next to nothing.
    let [sleeping, polling] = ["busy_poll=false", "busy_poll=true"].map(|poll| {
        let report = path(&directory, poll);
        let load = ["--set", poll, "--set", "shares.per_minute=3600", "--report", &report, "--strict"];
        let (code, stdout, stderr) = simulate(&pool.url, &load);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        read(Path::new(&report)).generator.cpu_ns_measured
    });
    // On a busy machine it gets less than a CPU.
    assert!(polling > 200_000_000 && polling > 3 * sleeping, "{polling} ns beside {sleeping} ns");
}

#[test]
fn mistakes_are_refused_before_anything_starts() {
    let pool = easy();
    for (args, expected) in [
        (["--set", "conections=1"], "unknown field `conections`"),
        (["--set", "connections=0"], "connections: must be from 1"),
        (["--scenario", "/nowhere/load.toml"], "/nowhere/load.toml"),
        (["--watch-pid", "4294967295"], "--watch-pid"),
        (["--processes", "0"], "--processes"),
        (["--cpus", "70000"], "--cpus"),
    ] {
        let (code, _, stderr) = simulate(&pool.url, &args);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    assert_eq!(pool.ask(|state| state.events.len()), 0);
}

/// As a terminal does: everybody gets the signal, and the report is what was counted until then.
#[test]
fn a_signal_to_all_processes_ends_a_load_with_its_report() {
    use std::os::unix::process::CommandExt;
    let pool = easy();
    let child = Command::new(env!("CARGO_BIN_EXE_adit-loadgen"))
        .args(["simulate", "--pool", &pool.url.to_string(), "--processes", "2", "--set", "connections=2"])
        .args(["--set", "shares.per_minute=6000", "--set", "duration_s=600"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the program starts");
    pool.wait_until("shares", |state| state.server.counters().shares_accepted > 50);
    let group = format!("-{}", child.id());
    let kill = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(kill.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("2 connections served") && stdout.contains("the sum is right"), "{stdout}");
}

#[test]
fn who_finds_nobody_fails() {
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    let url = PoolUrl { port: nobody.port(), ..easy().url.clone() };
    let (code, stdout, _) = simulate(&url, &["--set", "join.timeout_s=0.3", "--set", "duration_s=0"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("no connection got a job") && stdout.contains("refused"), "{stdout}");
}
