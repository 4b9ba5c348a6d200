//! Programs under test, as processes of their own.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything a test expects of a program, unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of output kept; a program that writes more than that has lost its way.
const LINES_MAX: usize = 100_000;

/// The path of a program of this workspace, `adit` or `adit-loadgen`, of the profile that the tests were built with. Built
/// first if that has not been done, so that a single test can be run by itself.
pub fn own_program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let directory = std::env::current_exe().expect("a running test has a path");
    // <target>/<profile>/deps/<test>
    let profile = directory.ancestors().nth(2).expect("tests lie in the profile's deps folder").to_path_buf();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "adit-roles", "-p", "adit-loadgen", "--bins"]);
        build.arg("--target-dir").arg(profile.parent().expect("a profile lies in the target folder"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the programs under test do not build");
    });
    profile.join(name)
}

/// A port on loopback that was free a moment ago, for programs that cannot say which one they took, or that must come back to
/// where they were.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// The path of a peer's program that `make fixtures` built into the cache.
///
/// # Panics
/// If it is not there: the message says how to get it.
pub fn peer_program(name: &str) -> PathBuf {
    fixture(&Path::new("sri/bin").join(name))
}

/// The path of a program of Bitcoin Core, `bitcoin-node` or `bitcoin-cli`, that `make fixtures` built into the cache.
///
/// # Panics
/// If it is not there: the message says how to get it.
pub fn core_program(name: &str) -> PathBuf {
    fixture(&Path::new("core/bin").join(name))
}

fn fixture(path: &Path) -> PathBuf {
    let cache = std::env::var_os("ADIT_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
        base.join("adit")
    });
    let path = cache.join(path);
    assert!(path.exists(), "{} is missing: run `make fixtures`", path.display());
    path
}

#[derive(Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A running program and everything it wrote. Killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    output: Arc<Output>,
}

impl Program {
    /// Starts `path` with `args`; both its streams are read line by line.
    pub fn start(path: &Path, args: &[&str]) -> Self {
        Self::start_command(Command::new(path).args(args))
    }

    /// Starts a prepared command.
    pub fn start_command(command: &mut Command) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        read_lines(stdout, Arc::clone(&output));
        read_lines(stderr, Arc::clone(&output));
        Self { name, child, output }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Everything written so far, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().expect("no reader panics").clone()
    }

    /// Waits for a line for which `find` gives something.
    ///
    /// # Panics
    /// With the whole output if none comes within `patience`, or if the program ends first.
    pub fn wait_for<T>(&mut self, what: &str, patience: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + patience;
        let mut seen = 0;
        loop {
            let ended = self.has_ended();
            {
                let mut lines = self.output.lines.lock().expect("no reader panics");
                if lines.len() == seen && !ended {
                    let wait = Duration::from_millis(200);
                    lines = self.output.grown.wait_timeout(lines, wait).expect("no reader panics").0;
                }
                if let Some(found) = lines[seen..].iter().find_map(|line| find(line)) {
                    return found;
                }
                seen = lines.len();
            }
            if ended || Instant::now() > deadline {
                // What was written just before the end may still be on its way through the reader.
                thread::sleep(Duration::from_millis(100));
                if let Some(found) = self.lines()[seen..].iter().find_map(|line| find(line)) {
                    return found;
                }
                let state = if ended { "ended" } else { "is silent" };
                panic!("{} {state} without {what}; it wrote:\n{}", self.name, self.lines().join("\n"));
            }
        }
    }

    /// The word of the output that starts with `prefix`, such as an address.
    pub fn wait_for_word(&mut self, prefix: &str) -> String {
        self.wait_for(prefix, PATIENCE, |line| {
            let start = line.find(prefix)?;
            Some(line[start..].split(|c: char| c.is_whitespace() || c == '"').next()?.to_owned())
        })
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} cannot be signalled", self.name);
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// With the whole output if it does not end within `patience`.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end; it wrote:\n{}",
                self.name,
                self.lines().join("\n")
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells VmRSS");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number");
        kib * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.lines();
            let tail = lines.len().saturating_sub(60);
            eprintln!("--- the last of {}:\n{}", self.name, lines[tail..].join("\n"));
        }
    }
}

fn read_lines(stream: impl Read + Send + 'static, output: Arc<Output>) {
    thread::spawn(move || {
        // A status line that is redrawn ends with a carriage return alone; none of the programs draws one to a pipe.
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut lines = output.lines.lock().expect("no reader panics");
            if lines.len() < LINES_MAX {
                lines.push(line);
            }
            output.grown.notify_all();
        }
    });
}
