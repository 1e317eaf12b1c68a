//! What a connection string is completed from besides itself.

use std::fs;
use std::path::PathBuf;

/// Variables and the user's identity; tests give their own.
pub trait Environment {
    /// An environment variable.
    fn var(&self, name: &str) -> Option<String>;

    /// The name of the effective user.
    fn os_user(&self) -> Option<String>;

    /// The user's home directory.
    fn home(&self) -> Option<PathBuf>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn os_user(&self) -> Option<String> {
        passwd_field(0).or_else(|| self.var("USER")).or_else(|| self.var("LOGNAME"))
    }

    fn home(&self) -> Option<PathBuf> {
        let home = self.var("HOME").filter(|home| !home.is_empty());
        home.or_else(|| passwd_field(5)).map(PathBuf::from)
    }
}

/// A field of the effective user's line in `/etc/passwd`.
///
/// Users who are only in a directory service have none; the C library would have to be asked for those,
/// and the variables a login sets serve as well.
fn passwd_field(index: usize) -> Option<String> {
    let id = rustix::process::geteuid().as_raw().to_string();
    let text = fs::read("/etc/passwd").ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id))?;
    line.split(':').nth(index).filter(|field| !field.is_empty()).map(str::to_owned)
}
