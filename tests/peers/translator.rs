//! The reference implementation's translator: SV1 miners on its one side, an extended channel to the pool on the other.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use adit_tests::pool::Pool;
use adit_tests::process::{PATIENCE, Program, free_port, peer_program};
use serde_json::{Value, json};
use tempfile::TempDir;

fn configuration(pool: &Pool, port: u16, aggregate: bool) -> String {
    format!(
        "downstream_address = \"127.0.0.1\"\n\
         downstream_port = {port}\n\
         max_supported_version = 2\n\
         min_supported_version = 2\n\
         downstream_extranonce2_size = 4\n\
         verify_payout = false\n\
         aggregate_channels = {aggregate}\n\
         supported_extensions = []\n\
         [downstream_difficulty_config]\n\
         min_individual_miner_hashrate = 100000.0\n\
         shares_per_minute = 60.0\n\
         enable_vardiff = false\n\
         job_keepalive_interval_secs = 60\n\
         [[upstreams]]\n\
         address = \"{}\"\n\
         port = {}\n\
         authority_pubkey = \"{}\"\n\
         user_identity = \"translated\"\n",
        pool.url.host, pool.url.port, pool.url.authority
    )
}

/// An SV1 miner as far as getting work goes.
struct Sv1Miner {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Sv1Miner {
    fn connect(port: u16) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "the translator does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let lines = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        Self { stream, lines }
    }

    fn send(&mut self, id: u32, method: &str, params: Value) {
        let line = json!({ "id": id, "method": method, "params": params });
        writeln!(self.stream, "{line}").expect("the translator reads");
    }

    /// Reads until a message for which `find` gives something.
    fn wait_for<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap_or_else(|error| panic!("no {what}: {error}"));
            assert!(read > 0 && Instant::now() < deadline, "the translator hung up or never sent {what}");
            let message: Value = serde_json::from_str(&line).expect("SV1 is JSON by lines");
            if let Some(found) = find(&message) {
                return found;
            }
        }
    }

    /// Subscribes and authorizes; returns the first job's parameters.
    fn first_job(&mut self) -> Value {
        self.send(1, "mining.subscribe", json!(["adit-tests"]));
        self.wait_for("an answer to mining.subscribe", |message| (message["id"] == 1).then_some(()));
        self.send(2, "mining.authorize", json!(["miner.one", "x"]));
        self.next_job()
    }

    fn next_job(&mut self) -> Value {
        self.wait_for("mining.notify", |message| {
            (message["method"] == "mining.notify").then(|| message["params"].clone())
        })
    }
}

fn serves_an_sv1_miner(aggregate: bool) {
    let pool = Pool::start("jobs.interval_s = 2.0");
    let directory = TempDir::new().expect("a temporary directory");
    let port = free_port();
    let config = directory.path().join("translator.toml");
    std::fs::write(&config, configuration(&pool, port, aggregate)).expect("the directory can be written to");
    let config = config.to_str().expect("temporary paths are text");
    let _translator = Program::start(&peer_program("translator_sv2"), &["--config", config]);

    let mut miner = Sv1Miner::connect(port);
    let job = miner.first_job();
    let job_id = job[0].clone();
    let coinbase = format!("{}{}", job[2].as_str().unwrap_or_default(), job[3].as_str().unwrap_or_default());
    let tag: String = b"/Adit/".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(coinbase.contains(&tag), "the job is made of the pool's coinbase: {job}");
    let opened = pool.log_lines("channel");
    assert!(opened.iter().any(|line| line.contains("extended") && line.contains("translated")), "{opened:?}");
    // The pool repeats jobs: the channel goes on.
    let next = miner.next_job();
    assert_ne!(next[0], job_id);
    assert!(pool.log_lines("disconnected after").is_empty(), "{:?}", pool.log_lines("disconnected after"));
    pool.stop();
}

#[test]
fn the_reference_translator_opens_a_channel_for_each_miner_and_gets_jobs() {
    serves_an_sv1_miner(false);
}

#[test]
fn the_reference_translator_aggregates_miners_on_one_channel_and_gets_jobs() {
    serves_an_sv1_miner(true);
}
