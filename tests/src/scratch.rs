//! Where tests write.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "tillflow-tests-";

/// A directory of its own, removed when this is dropped, unless the test failed: then it says where it is.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KEEP_TEST_FILES").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A new empty directory. With `KEEP_TEST_FILES` set, a failed test leaves it.
#[must_use]
pub fn scratch(name: &str) -> Scratch {
    let path = root().join(unique(name));
    fs::create_dir_all(&path).expect("a directory for a test");
    Scratch { path }
}

/// The name with a number that no other of this process has: for topics, groups, directories.
#[must_use]
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The one directory of this process. Those of processes that are gone are removed first, since a static value,
/// such as the shared broker, is never dropped.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let temporary = std::env::temp_dir();
        for entry in fs::read_dir(&temporary).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(process) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            if !Path::new("/proc").join(process).exists() && std::env::var_os("KEEP_TEST_FILES").is_none() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let root = temporary.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory for the tests");
        root
    })
}
