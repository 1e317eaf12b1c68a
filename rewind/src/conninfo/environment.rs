//! The environment that completes a connection string.

use std::path::PathBuf;

use nix::unistd::{Uid, User};

/// Environment variables and the operating system user. See the [module](super) for an implementation.
pub trait Environment {
    /// An environment variable.
    fn var(&self, name: &str) -> Option<String>;

    /// The name of the effective user, which is the default of `user`.
    fn os_user(&self) -> Option<String>;

    /// The home directory, for the default files.
    fn home(&self) -> Option<PathBuf>;
}

/// The environment of this process, with the variable names of one product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProcessEnvironment {
    /// The names of libpq: `PGHOST` and so on.
    PostgreSql,
    /// The same, and where a variable is not set, the name in KingbaseES's client library: `KINGBASE_HOST` and so on
    /// (manual of `ksql`; public Go driver).
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

/// The name of an operating system user.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}
