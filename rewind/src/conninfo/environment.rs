//! What a connection string is completed from besides itself.

use std::path::PathBuf;

use nix::unistd::{Uid, User};

/// Variables and the user's identity; tests give their own.
pub trait Environment {
    /// An environment variable.
    fn var(&self, name: &str) -> Option<String>;

    /// The name of the effective user.
    fn os_user(&self) -> Option<String>;

    /// The user's home directory.
    fn home(&self) -> Option<PathBuf>;
}

/// The environment of this process, and by which names it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessEnvironment {
    /// As libpq does: `PGHOST`.
    PostgreSql,
    /// Where that is not set, also as KingbaseES's library does: `KINGBASE_HOST`. Every name is made like this
    /// (its manual on `ksql`, and its public Go driver).
    KingbaseEs,
}

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        let theirs = || match self {
            ProcessEnvironment::PostgreSql => None,
            ProcessEnvironment::KingbaseEs => {
                name.strip_prefix("PG").map(|rest| std::env::var(format!("KINGBASE_{rest}")).ok())
            }
        };
        std::env::var(name).ok().or_else(|| theirs().flatten())
    }

    fn os_user(&self) -> Option<String> {
        user_name(Uid::effective().as_raw())
    }

    fn home(&self) -> Option<PathBuf> {
        let home = self.var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        home.or_else(|| User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir))
    }
}

/// The name of a user of the operating system.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
