//! The `tillflow` binary, as a process.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use serde_json::Value;

use crate::{Exit, Process, Scratch, free_port, scratch, until};

/// The data directory in the working directory, unless configured.
const DATA: &str = "tillflow-data";

/// A command about to be run.
#[derive(Debug)]
pub struct Run {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<String>,
    files: Arc<Scratch>,
    limit: Duration,
    disk_mb: Option<u32>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub exit: Exit,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Where it ran: its working directory.
    pub files: Arc<Scratch>,
}

impl Finished {
    /// Its exit code; -1 when a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.exit.code().unwrap_or(-1)
    }

    /// Its last line of stdout, as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}; stderr:\n{}", self.stderr))
    }

    /// Checks that it ended with this code, and that its last words hold all of these.
    ///
    /// # Panics
    /// When it didn't, or they don't.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), code, "{}", self.stderr);
        let last = self.stderr.lines().skip_while(|l| !l.starts_with("tillflow:")).collect::<Vec<_>>().join("\n");
        for word in words {
            assert!(last.contains(word), "no '{word}' in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }

    /// Itself, when it ended with 0.
    ///
    /// # Panics
    /// When it didn't.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.exit.success(), "{}:\n{}", self.exit, self.stderr);
        self
    }
}

impl Run {
    /// `tillflow ARGUMENTS`, in an empty directory of its own, without this process's `TILLFLOW_…` variables.
    #[must_use]
    pub fn new<A: Into<String>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            stdin: None,
            files: Arc::new(scratch("tillflow")),
            limit: Duration::from_secs(120),
            disk_mb: None,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A configuration key, given as its environment variable: `data.dir` as `TILLFLOW_DATA_DIR`.
    #[must_use]
    pub fn set(self, key: &str, value: impl ToString) -> Self {
        let name = format!("TILLFLOW_{}", key.to_uppercase().replace('.', "_"));
        self.env(&name, value)
    }

    /// As the instance `id` of the shop whose topics on a cluster begin with `prefix`.
    #[must_use]
    pub fn on_kafka(self, brokers: &str, prefix: &str, id: &str) -> Self {
        self.set("brokers", brokers).set("topics.prefix", prefix).set("app_id", format!("{prefix}app")).set("instance.id", id)
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// The text of `tillflow.yaml` in its working directory.
    #[must_use]
    pub fn config(self, yaml: &str) -> Self {
        self.file("tillflow.yaml", yaml)
    }

    /// A file in its working directory.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.files.join(name), content).expect("a file for the program");
        self
    }

    /// A file of its working directory as its stdin, which is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, name: &str) -> Self {
        self.stdin = Some(name.to_owned());
        self
    }

    /// Runs in the directory of another, and so with its data: a restart, or a second command on the same data.
    #[must_use]
    pub fn in_directory_of(mut self, files: &Arc<Scratch>) -> Self {
        self.files = Arc::clone(files);
        self
    }

    /// How long it may take; 120 s unless told.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// With a disk of this size under `tillflow-data`, which goes with the process: [`Tillflow::disk`].
    #[must_use]
    pub fn with_disk_of(mut self, megabytes: u32) -> Self {
        fs::create_dir_all(self.files.join(DATA)).expect("a place for a disk");
        self.disk_mb = Some(megabytes);
        self
    }

    /// Its working directory.
    #[must_use]
    pub fn files(&self) -> &Arc<Scratch> {
        &self.files
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it doesn't end in time.
    #[must_use]
    #[track_caller]
    pub fn finish(self) -> Finished {
        let mut process = self.launch();
        let exit = process.wait(self.limit);
        Finished { exit, stdout: process.stdout(), stderr: process.stderr(), files: Arc::clone(&self.files) }
    }

    /// Starts it and does not wait for anything; its files are there as long as this is.
    #[must_use]
    pub fn start(&self) -> Process {
        self.launch()
    }

    /// Starts it as a server, and waits until it answers on `/healthz`. Whether it is ready is another question:
    /// [`Tillflow::wait_until_ready`].
    ///
    /// # Panics
    /// When it ends instead, or doesn't answer in time.
    #[must_use]
    #[track_caller]
    pub fn spawn(mut self) -> Tillflow {
        if !self.environment.iter().any(|(name, _)| name == "TILLFLOW_LISTEN") {
            self = self.set("listen", format!("127.0.0.1:{}", free_port()));
        }
        let listen = self.environment.iter().rev().find(|(name, _)| name == "TILLFLOW_LISTEN");
        let url = format!("http://{}", listen.map_or("", |(_, address)| address));
        let process = self.launch();
        let http = Client::builder().timeout(Duration::from_secs(30)).build().expect("an HTTP client");
        let mut tillflow = Tillflow { run: self, url, process, http };
        tillflow.wait_until_up();
        tillflow
    }

    fn launch(&self) -> Process {
        let program = if self.disk_mb.is_some() { Path::new("unshare") } else { binary() };
        Process::spawn("tillflow", self.files.path(), program, |command| {
            if let Some(megabytes) = self.disk_mb {
                let mounted = format!("mount -t tmpfs -o size={megabytes}m disk {DATA} && exec \"$0\" \"$@\"");
                command.args(own_mounts()).args(["--", "sh", "-c", &mounted]).arg(binary());
            }
            command.current_dir(self.files.path()).args(&self.arguments);
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TILLFLOW_")) {
                command.env_remove(name);
            }
            if let Some(name) = &self.stdin {
                command.stdin(fs::File::open(self.files.join(name)).expect("a file for stdin"));
            }
            command.env("RUST_BACKTRACE", "1").envs(self.environment.iter().map(|(name, value)| (name, value)));
        })
    }
}

/// What `unshare` is told so that a process may mount what it alone sees. Root needs no namespace of users for that, which
/// not every container lets it have.
fn own_mounts() -> &'static [&'static str] {
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if is_root { &["--mount"] } else { &["--map-root-user", "--mount"] }
}

/// Whether processes can have disks of their own here ([`Run::with_disk_of`]); where not, as in most containers, that is said
/// on stderr, past the test runner.
#[must_use]
pub fn can_have_disks() -> bool {
    let tried = Command::new("unshare").args(own_mounts()).args(["--", "mount", "-t", "tmpfs", "disk", "/mnt"]).output();
    let can = tried.as_ref().is_ok_and(|tried| tried.status.success());
    if !can {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no process may mount a disk of its own here; full disks are not tried ({tried:?})");
    }
    can
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Tillflow {
    // Dropped before its directory is, where its last words are.
    process: Process,
    run: Run,
    url: String,
    http: Client,
}

impl Tillflow {
    /// `tillflow run`, to be completed and spawned.
    #[must_use]
    pub fn run() -> Run {
        Run::new(["run"])
    }

    /// Any other command, to be completed and finished.
    #[must_use]
    pub fn command<A: Into<String>>(arguments: impl IntoIterator<Item = A>) -> Run {
        Run::new(arguments)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `ws://127.0.0.1:PORT`.
    #[must_use]
    pub fn ws_url(&self) -> String {
        self.url.replacen("http", "ws", 1)
    }

    /// Its working directory, where `tillflow-data` is unless configured.
    #[must_use]
    pub fn files(&self) -> &Arc<Scratch> {
        &self.run.files
    }

    /// The data directory as the process sees it, on a disk of its own.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        let inside = self.run.files.join(DATA);
        Path::new("/proc").join(self.process.id().to_string()).join("root").join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    /// The process, for its id and signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it wrote to stderr, in all its lives.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Exit {
        self.process.kill()
    }

    /// SIGTERM, and its end within the 2 s that it promises, with room for a busy machine.
    pub fn stop(&mut self) -> Exit {
        self.process.terminate(Duration::from_secs(10))
    }

    /// The same command once more, in the same directory, with the same address. Kills it if it still runs.
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = self.run.launch();
        self.wait_until_up();
    }

    /// Waits until `/readyz` says that all is restored.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        until("tillflow is ready", self.run.limit, || {
            assert!(self.process.is_running(), "tillflow has ended:\n{}", self.process.stderr());
            self.is_ready()
        });
    }

    /// Whether it says that all is restored.
    pub fn is_ready(&self) -> bool {
        self.http.get(format!("{}/readyz", self.url)).send().is_ok_and(|answer| answer.status().is_success())
    }

    /// GET, whatever the answer's status.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.url)).send().unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// GET of JSON.
    ///
    /// # Panics
    /// When the answer is none, or no success, or not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        let status = answer.status();
        let text = answer.text().expect("a body");
        assert!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {error} in {text}"))
    }

    /// POST of JSON, whatever the answer's status.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Response {
        self.http.post(format!("{}{path}", self.url)).json(&body).send().unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    fn wait_until_up(&mut self) {
        let limit = self.run.limit;
        let (process, http, url) = (&mut self.process, &self.http, format!("{}/healthz", self.url));
        until("tillflow answers", limit, || {
            assert!(process.is_running(), "tillflow has ended:\n{}", process.stderr());
            http.get(&url).send().is_ok_and(|answer| answer.status().is_success())
        });
    }
}

/// The binary of this workspace: the one beside this program, as where `scripts/bench` has built both, or, for tests, built if
/// need be. A hard link of it in this process's own directory: another build meanwhile replaces the name, not the file.
fn binary() -> &'static Path {
    static BINARY: OnceLock<(PathBuf, Scratch)> = OnceLock::new();
    let (path, _) = BINARY.get_or_init(|| {
        let directory = scratch("binary");
        let path = directory.join("tillflow");
        let beside = std::env::current_exe().ok().map(|program| program.with_file_name("tillflow")).filter(|path| path.is_file());
        let executable = beside.unwrap_or_else(built);
        fs::hard_link(&executable, &path).or_else(|_| fs::copy(&executable, &path).map(|_| ())).expect("the binary");
        (path, directory)
    });
    path
}

/// The binary as cargo builds it.
fn built() -> PathBuf {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The same selection as everywhere else, so that no dependency is built with other features.
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--locked", "--workspace", "--bins", "--message-format=json"]);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "tillflow isn't built:\n{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "tillflow")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the binary")
}
