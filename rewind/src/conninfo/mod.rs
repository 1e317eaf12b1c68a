//! Connection strings, as libpq reads them.
//!
//! [`Conninfo::parse`] completes a connection string from the service it names, the environment, the password file and the
//! built-in defaults, and checks it. [`ConninfoText`] takes a string apart and puts it together again without completing
//! it. Neither needs a server, nor anything else of this crate:
//!
//! ```
//! use std::path::PathBuf;
//!
//! use kbrecover_rewind::conninfo::{Conninfo, ConninfoError, Environment};
//!
//! struct NoEnvironment;
//!
//! impl Environment for NoEnvironment {
//!     fn var(&self, _name: &str) -> Option<String> {
//!         None
//!     }
//!     fn os_user(&self) -> Option<String> {
//!         Some("postgres".to_owned())
//!     }
//!     fn home(&self) -> Option<PathBuf> {
//!         None
//!     }
//! }
//!
//! let conninfo = Conninfo::parse("postgresql://rewind_user:secret@db1,db2/app", &NoEnvironment)?;
//! assert_eq!((conninfo.user(), conninfo.database()), ("rewind_user", "app"));
//! assert!(!conninfo.redacted().contains("secret"));
//!
//! let error = Conninfo::parse("host=db1 sslmode=maybe", &NoEnvironment).unwrap_err();
//! assert_eq!(error.to_string(), "invalid sslmode value: \"maybe\"");
//! # Ok::<(), ConninfoError>(())
//! ```
//!
//! tokio-postgres's own parser is not used: it reads some strings differently from libpq (milliseconds as seconds, another
//! host) and refuses others.
//!
//! Passwords leave this module only for the server, for decrypting the private key, and for `primary_conninfo`.

mod auth;
mod encryption;
mod environment;
mod error;
mod options;
mod parsed;
mod passfile;
mod require_auth;
mod servers;
mod service;
mod syntax;
mod tcp;
mod text;
mod written;

pub(crate) use auth::AuthRules;
pub(crate) use encryption::{Encryption, Negotiation, SslMode, TrustedRoots};
pub(crate) use environment::user_name;
pub use environment::{Environment, ProcessEnvironment};
pub use error::ConninfoError;
pub use parsed::Conninfo;
pub(crate) use require_auth::AuthMethod;
pub(crate) use servers::{Address, Candidate, LoadBalance, SessionAttrs};
pub(crate) use tcp::TcpOptions;
pub use text::ConninfoText;
pub use written::WrittenPassword;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
