//! The directory of a demo that keeps nothing: gone at its end, or at the next demo's start if it could not clean up itself.
//!
//! A second stop signal, or a kill, ends a demo where it stands. So each directory holds a file that its demo has locked, and
//! a demo that starts removes the directories whose files nobody has locked. Bounds: [`SWEPT_MAX`] are looked at.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = "adit-demo-";
/// Locked as long as the demo lives.
const LOCK_FILE: &str = "demo.lock";
/// Directories that one start looks at.
const SWEPT_MAX: usize = 64;

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: TempDir,
    _lock: File,
}

impl Temporary {
    /// Makes one in `base`, and removes there what earlier demos have left.
    pub(super) fn make(base: &Path) -> io::Result<Self> {
        sweep(base);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base)?;
        // Locked before it has its name: no other demo finds it unlocked.
        let unnamed = directory.path().join("demo.lock.new");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(unnamed, directory.path().join(LOCK_FILE))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of demos that have ended. What cannot be removed is another user's, and stays.
fn sweep(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let demos = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for entry in demos.take(SWEPT_MAX) {
        let directory = entry.path();
        let is_left = File::open(directory.join(LOCK_FILE)).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_left && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let alive = Temporary::make(base.path()).unwrap();
        let killed = Temporary::make(base.path()).unwrap();
        fs::write(killed.path().join("blocks"), "much").unwrap();
        // Its process is gone: the lock with it, the directory not.
        let Temporary { directory, _lock } = killed;
        drop(_lock);
        let left = directory.keep();
        let foreign = base.path().join("adit-demo-foreign");
        fs::create_dir(&foreign).unwrap();
        assert!(left.exists());
        let next = Temporary::make(base.path()).unwrap();
        assert!(!left.exists() && alive.path().exists() && foreign.exists());
        let path = next.path().to_owned();
        drop(next);
        assert!(!path.exists());
    }
}
