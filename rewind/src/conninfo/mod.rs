//! Connection strings, as libpq has them.
//!
//! A string, the service it names, the environment and the built-in defaults become one checked [`Conninfo`];
//! what a connection is opened with is set from it option by option. tokio-postgres's own parser is not used:
//! it reads some strings differently (milliseconds as seconds, another host), and refuses others.
//!
//! Passwords leave this module only for the server, for the key they open and for `primary_conninfo`.

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
