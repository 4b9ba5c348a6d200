//! The program `adit-loadgen`.

mod pool;

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthoritySecretKey;
use adit_codec::url::PoolUrl;
use pool::{Pool, config};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(url: &PoolUrl, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_adit-loadgen"))
        .args(["mine", &url.to_string(), "--hash-rate-limit", "50000", "--nominal-hash-rate", "50000"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn finish(mut child: Child) -> (Option<i32>, String, String) {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the program does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it has ended");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn mines_shares_and_sums_up() {
    let pool = Pool::start(config());
    let args = ["--devices", "4", "--per-connection", "2", "--kind", "mixed", "--shares", "50", "--strict"];
    let (code, stdout, stderr) = finish(start(&pool.url, &args));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("devices        4 (4 mining at the end)"), "{stdout}");
    assert!(stdout.contains("0 rejected, 0 outstanding, 0 lost"), "{stdout}");
    assert!(stdout.contains("connections    2 made, 0 failed"), "{stdout}");
}

#[test]
fn a_signal_ends_it_cleanly() {
    let pool = Pool::start(config());
    let child = start(&pool.url, &["--strict", "--backend", "portable"]);
    pool.wait_until("shares", |state| state.server.counters().shares_accepted > 5);
    // Two in one moment are one wish.
    let signals = format!("kill -INT {0}; kill -TERM {0}", child.id());
    let kill = Command::new("sh").args(["-c", &signals]).status();
    assert!(kill.expect("kill runs").success());
    let (code, stdout, stderr) = finish(child);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    pool.wait_until("the channel to be closed", |state| state.server.channel_count() == 0);
}

#[test]
fn strict_fails_when_shares_are_refused() {
    let mut config = config();
    config.limits.shares_per_tip_max = 3;
    let pool = Pool::start(config);
    let (code, stdout, _) = finish(start(&pool.url, &["--duration", "1.5", "--strict"]));
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("too-many-shares"), "{stdout}");
    let (code, stdout, _) = finish(start(&pool.url, &["--duration", "1"]));
    assert_eq!(code, Some(0), "{stdout}");
}

#[test]
fn strict_fails_when_nothing_was_mined() {
    let pool = Pool::start(config());
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = PoolUrl { port: closed.expect("a port").port(), ..pool.url.clone() };
    let (code, stdout, stderr) = finish(start(&nobody, &["--duration", "0.5", "--strict"]));
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stderr.contains("no connection"), "said while it runs: {stderr}");
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let pool = Pool::start(config());
    let mut child = start(&pool.url, &["--shares", "1"]);
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(finish(child).0, Some(0));
}

#[test]
fn a_wrong_key_fails_with_a_clear_message() {
    let pool = Pool::start(config());
    let authority = AuthoritySecretKey::from_bytes(&[8; 32]).expect("a key").public_key();
    let (code, stdout, _) = finish(start(&PoolUrl { authority, ..pool.url.clone() }, &[]));
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("wrong server or wrong authority key"), "{stdout}");
}

#[test]
fn arguments_that_cannot_be() {
    let pool = Pool::start(config());
    let (code, _, stderr) = finish(start(&pool.url, &["--devices", "0"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("devices: 0, must be from 1"), "{stderr}");
    let (code, _, stderr) = finish(start(&pool.url, &["--backend", "abacus"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("abacus"), "{stderr}");
}
