//! Child processes that never outlive the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::until_some;

/// How a process ended.
pub type Exit = ExitStatus;

/// A running child, its two output streams in files. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `program`, with its outputs appended to `NAME.out` and `NAME.err` in `logs`.
    ///
    /// The kernel kills it when this process dies, however that happens.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn(name: &str, logs: &Path, program: &Path, prepare: impl FnOnce(&mut Command)) -> Self {
        let out = logs.join(format!("{name}.out"));
        let err = logs.join(format!("{name}.err"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.stdin(Stdio::null()).stdout(append(&out)).stderr(append(&err));
        prepare(&mut command);
        let child = spawn_for_good(command).unwrap_or_else(|error| panic!("{} can't be started: {error}", program.display()));
        Self { name: name.to_owned(), child, out, err }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Sends a signal. One that has ended already gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits for the end: what a crash leaves.
    pub fn kill(&mut self) -> Exit {
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for")
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Exit {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// SIGSTOP: it stands still, its connections open.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on, not knowing that time has passed.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Exit {
        let what = format!("end of {}, which said last:\n{}", self.name, tail(&self.err));
        until_some(&what, limit, || self.child.try_wait().expect("a child can be asked"))
    }

    /// All it has written to stdout, in all its lives.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// All it has written to stderr, in all its lives.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said last:\n{}---", self.name, tail(&self.err));
        }
    }
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a log file")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(path: &Path) -> String {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].iter().map(|line| format!("{line}\n")).collect()
}

/// The kernel's death signal is bound to the *thread* that started the child, and the thread of a test ends before
/// the process does; so one thread that never ends starts all children.
fn spawn_for_good(command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, incoming) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in incoming {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    spawner.lock().unwrap().send((command, answer)).expect("the spawner runs for good");
    child.recv().expect("the spawner answers")
}
