//! Simulated devices against the real pool: every profile, on two shards, and every share accounted for on both sides.

use std::time::Duration;

use adit_tests::pool::Pool;
use adit_tests::process::{Program, own_program};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// Any hash is a share, and hardly one is a block.
const EASY: &str = "
    template_source.chain = \"signet\"
    vardiff.shares_per_minute = 1e9
    log.status_interval_s = 1
";

#[test]
fn simulated_devices_of_every_profile_lose_no_share() {
    let mut pool = Pool::start(EASY);
    let directory = TempDir::new().expect("a temporary directory");
    let mut accepted = 0;
    for (profile, shares) in [
        ("standard-grouped", "shares.per_minute=1200"),
        ("standard-jobs", "shares.per_minute=1200"),
        ("extended", "shares.kind=closed"),
        ("mixed", "shares.kind=closed"),
    ] {
        let report = directory.path().join(profile);
        let report_path = report.to_str().expect("temporary paths are text");
        let (url, pid) = (pool.url.to_string(), pool.program.id().to_string());
        let profile = format!("profile={profile}");
        let mut args =
            vec!["simulate", "--pool", &url, "--report", report_path, "--watch-pid", &pid, "--strict"];
        args.extend(["--processes", "2"]);
        for setting in [
            &profile,
            shares,
            "connections=6",
            "channels_per_connection=20",
            "shares.in_flight=32",
            "shares.per_write=4",
            "warmup_s=0.3",
            "duration_s=2",
            "drain_s=20",
            // A block is found now and then: shares cross the new tip on the wire.
            "check.rejected_max=2000",
        ] {
            args.extend(["--set", setting]);
        }
        let mut load = Program::start(&own_program("adit-loadgen"), &args);
        let status = load.wait(PATIENCE);
        assert!(status.success(), "{profile}: {status}; it wrote:\n{}", load.lines().join("\n"));
        let json = std::fs::read_to_string(report.join("report.json")).expect("a report");
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let number = |path: &str| report.pointer(path).and_then(Value::as_u64).expect(path);
        assert_eq!(report["shares"]["sum_is_right"], true, "{profile}");
        assert_eq!((number("/shares/outstanding"), number("/shares/lost")), (0, 0), "{profile}");
        let codes = report["shares"]["rejected"].as_object().expect("codes");
        assert!(codes.keys().all(|code| code == "stale-share"), "{profile}: {codes:?}");
        assert_eq!(
            (number("/join/connections_served"), number("/join/channels_opened")),
            (6, 120),
            "{profile}"
        );
        assert!(number("/watched/0/cpu_ns_measured") > 0, "{profile}");
        accepted += number("/shares/accepted");
    }
    assert!(accepted > 4_000, "{accepted}");
    // The pool's own count, once all connections are gone.
    pool.program.wait_for("the pool's count", PATIENCE, |line| {
        let count = line.split_once(" accepted=")?.1.split_whitespace().next()?;
        (count.parse() == Ok(accepted)).then_some(())
    });
}
