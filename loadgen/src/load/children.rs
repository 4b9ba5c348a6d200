//! Parts of a load in processes of their own.
//!
//! A child is this program with the command `part`. Lines of JSON go both ways: its request, then `go`, on its standard input;
//! seconds, that it has joined, and at last its counts on its standard output. A child whose input ends stops: none outlives
//! its parent.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use super::{LoadConfig, LoadError, TICK, resolve, simulation_config};
use crate::report::{Generator, Second, Tally};
use crate::simulate::{Scenario, Simulation, part};

/// Processes of one load on one host.
pub const PROCESSES_MAX: u32 = 256;

/// What a child is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PartRequest {
    url: String,
    scenario: Scenario,
    first: u32,
    end: u32,
    threads: u32,
    threads_in_all: u32,
}

/// What a child tells.
#[derive(Serialize, Deserialize)]
enum Line {
    Joined,
    Second(Second),
    Done(Box<(Tally, Generator)>),
}

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// The children of a load.
pub(super) struct Children {
    processes: Vec<Process>,
    lines: Receiver<Result<Line, LoadError>>,
    joined: usize,
    done: Vec<(Tally, Generator)>,
}

impl Children {
    pub(super) fn start(config: &LoadConfig) -> Result<Self, LoadError> {
        let failed = |error: io::Error| LoadError::Child(format!("cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let (sender, lines) = channel();
        let mut processes = Vec::new();
        let whole = 0..config.scenario.connections;
        let count = config.processes.clamp(1, PROCESSES_MAX).min(config.scenario.connections);
        for index in 0..count {
            let connections = part(&whole, index, count);
            let request = PartRequest {
                url: config.url.to_string(),
                scenario: config.scenario.clone(),
                first: connections.start,
                end: connections.end,
                threads: config.threads,
                threads_in_all: config.threads.saturating_mul(count),
            };
            let mut child = Command::new(&program)
                .arg("part")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(failed)?;
            let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
            if let Some(stdin) = &mut stdin {
                let json = serde_json::to_string(&request).expect("a request is plain values");
                writeln!(stdin, "{json}").map_err(failed)?;
            }
            if let Some(stdout) = stdout {
                let sender = sender.clone();
                std::thread::spawn(move || read_lines(stdout, &sender));
            }
            processes.push(Process { child, stdin });
        }
        Ok(Self { processes, lines, joined: 0, done: Vec::new() })
    }

    pub(super) fn poll(
        &mut self,
        timeout: Duration,
        mut handle: impl FnMut(Second),
    ) -> Result<bool, LoadError> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.done.len() == self.processes.len() {
                return Ok(false);
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(Line::Joined)) => self.joined += 1,
                Ok(Ok(Line::Second(second))) => handle(second),
                Ok(Ok(Line::Done(done))) => self.done.push(*done),
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(LoadError::Child("a process ended early".to_owned()));
                }
            }
        }
    }

    pub(super) fn has_joined(&self) -> bool {
        self.joined == self.processes.len()
    }

    pub(super) fn go(&mut self) {
        for stdin in self.processes.iter_mut().filter_map(|process| process.stdin.as_mut()) {
            // A child that has gone is noticed by its output.
            let _ = writeln!(stdin, "go");
        }
    }

    pub(super) fn stop(&mut self) {
        self.processes.iter_mut().for_each(|process| process.stdin = None);
    }

    pub(super) fn finish(self) -> Result<(Tally, Generator), LoadError> {
        let mut tally = Tally::default();
        tally.shares.sum_is_right = true;
        let mut sum = Generator::default();
        for (part, generator) in &self.done {
            tally.merge(part);
            sum.merge(generator);
        }
        Ok((tally, sum))
    }
}

/// Hands on what a child writes, to its end.
fn read_lines(stdout: impl io::Read, sender: &Sender<Result<Line, LoadError>>) {
    let mut is_done = false;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string());
        let line = line.and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()));
        is_done |= matches!(line, Ok(Line::Done(_)));
        if sender.send(line.map_err(LoadError::Child)).is_err() {
            return;
        }
    }
    if !is_done {
        let _ = sender.send(Err(LoadError::Child("a process ended without its counts".to_owned())));
    }
}

/// The command `part`: runs what the parent asks for.
///
/// # Errors
/// The request is none, or its load cannot begin.
pub fn run_part(input: impl BufRead + Send + 'static, output: impl Write) -> Result<(), LoadError> {
    let wrong = |error: String| LoadError::Child(format!("no request: {error}"));
    let mut input = input;
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| wrong(error.to_string()))?;
    let PartRequest { url, scenario, first, end, threads, threads_in_all } =
        serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
    let url: PoolUrl = url.parse().map_err(|error: adit_codec::url::UrlError| wrong(error.to_string()))?;
    let pool = resolve(&url)?;
    let (warmup_s, duration_s) = (scenario.warmup_s, scenario.duration_s);
    let config = LoadConfig { url, scenario, threads, processes: 1, watched: Vec::new(), at: None };
    let mut observer = Observer::new(&[])?;
    observer.begin();
    let mut simulation = Simulation::start(simulation_config(&config, pool, first..end, threads_in_all))
        .map_err(LoadError::Transport)?;
    let (goes, stops) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    {
        let (goes, stops) = (Arc::clone(&goes), Arc::clone(&stops));
        std::thread::spawn(move || {
            for _ in input.lines().map_while(Result::ok).filter(|line| line == "go") {
                goes.store(true, Ordering::Release);
            }
            stops.store(true, Ordering::Release);
        });
    }
    let output = Mutex::new(output);
    // A parent that has gone reads no lines; the end of the input says so.
    let tell = |line: &Line| {
        let json = serde_json::to_string(line).expect("counts are plain values");
        let _ = writeln!(output.lock().unwrap_or_else(PoisonError::into_inner), "{json}");
    };
    let (mut has_told, mut went) = (false, None::<Instant>);
    while simulation.poll(TICK / 4, |second| tell(&Line::Second(second))) {
        if simulation.has_joined() && !has_told {
            has_told = true;
            observer.joined();
            tell(&Line::Joined);
        }
        if goes.load(Ordering::Acquire) && went.is_none() {
            simulation.go();
            went = Some(Instant::now());
        }
        if let Some(went) = went {
            let warmup = Duration::from_secs_f64(warmup_s);
            observer.pass(went.elapsed(), warmup, Duration::from_secs_f64(duration_s));
        }
        if stops.load(Ordering::Acquire) {
            simulation.stop();
        }
    }
    let threads = simulation.threads();
    let tally = simulation.finish().map_err(LoadError::Transport)?;
    let (_, own) = observer.finish("", 0);
    tell(&Line::Done(Box::new((tally, Generator { processes: 1, threads, ..own }))));
    Ok(())
}
